// `rein data`: corpora for pretraining, without any service.

#pragma once

#include <string>

#include "common/data/corpus_builder.h"

namespace rein::cli {

struct DataBuildFlags {
  std::string model;  // folder with the tokenizer
  data::BuildOptions options;
  bool no_eod = false;
};

// Tokenises; prints what was made, with tokens per second, and progress on standard error. Returns the exit code.
int RunDataBuild(const DataBuildFlags& flags);

// What an .idx file holds.
int RunDataInspect(const std::string& path);

}  // namespace rein::cli
