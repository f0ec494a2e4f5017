// Where the parts of a model lie: a Hugging Face folder is all of it, a PEFT adapter folder names the folder of its base.

#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace rein::checkpoint {

struct ModelSource {
  std::string weights;  // a folder with config.json and the whole weights, or a config.json itself
  std::string adapter;  // a folder with adapter_config.json; empty: none
  std::string text;     // the folder of the tokenizer
};

// `path` is a folder or a config.json; it need not exist unless it is an adapter folder. base_model_name_or_path may be
// absolute, or relative to the adapter folder. NOT_FOUND when it is no folder of this machine, INVALID_ARGUMENT when
// adapter_config.json does not name one or names another adapter.
absl::StatusOr<ModelSource> FindModel(const std::string& path);

}  // namespace rein::checkpoint
