// BuildCorpus tokenises text files into the .idx and .bin of Megatron, on all cores, and goes on where it was stopped.
//
//   REIN_ASSIGN_OR_RETURN(BuildReport report, BuildCorpus({.inputs = {"a.jsonl"}, .prefix = "corpus"}, *text, {}));
//
// The input is cut into shards of whole lines. Each shard becomes PREFIX-N.{bin,idx}, which is there whole or not at all;
// a build that is begun again with the same inputs and options keeps the shards that are there. At the end they become
// one PREFIX.{bin,idx}. The result depends on the inputs and options alone, not on threads or restarts.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/data/fill_in_the_middle.h"
#include "common/text/model_text.h"

namespace rein::data {

struct BuildOptions {
  // .jsonl and .parquet: each line or row a document; any other file is one document as a whole.
  std::vector<std::string> inputs;
  std::string column = "text";  // of .jsonl and .parquet, with the text; a path of keys with dots
  std::string prefix;           // of the files that are made
  bool append_eod = true;       // the tokenizer's end-of-text token after each document
  FillInTheMiddleOptions middle;
  int threads = 0;              // 0: one per core
  uint64_t shard_bytes = uint64_t{256} << 20;  // of text
  uint64_t max_skipped = 0;     // lines that may be wrong: skipped and counted; more end the build
  bool keep_shards = false;     // leave PREFIX-N as they are instead of joining them
};

struct BuildReport {
  uint64_t documents = 0, tokens = 0, text_bytes = 0;
  uint64_t skipped = 0;       // wrong or empty lines
  uint64_t kept_shards = 0;   // from an earlier build
  std::vector<std::string> index_files;
};

// Told now and then of what this call has done so far.
using BuildProgress = std::function<void(const BuildReport& so_far)>;

// INVALID_ARGUMENT names the file and line that is wrong; FAILED_PRECONDITION when shards of another build are there;
// ALREADY_EXISTS when the result is.
absl::StatusOr<BuildReport> BuildCorpus(const BuildOptions& options, const text::ModelText& text,
                                        const BuildProgress& progress);

}  // namespace rein::data
