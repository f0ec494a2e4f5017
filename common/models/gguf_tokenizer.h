// Byte-level BPE tokenizers between tokenizer.json and the keys of a GGUF file.

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "common/checkpoint/gguf.h"

namespace rein::models {

// The keys tokenizer.ggml.* and tokenizer.chat_template of a folder's tokenizer; the vocabulary is padded to `vocabulary`.
// INVALID_ARGUMENT when it is no byte-level BPE, or its pre-tokenizer none that llama.cpp has a name for.
absl::StatusOr<checkpoint::GgufMetadata> TokenizerKeys(const std::string& folder, int64_t vocabulary, const nlohmann::json& config);

// tokenizer.json and tokenizer_config.json into `folder`, from the file's keys. False when they are of another kind.
absl::StatusOr<bool> WriteTokenizer(const checkpoint::GgufFile& file, const std::string& folder);

}  // namespace rein::models
