// Qwen2 and Qwen2.5 (Alibaba): Llama with biases on q, k and v.

#include <nlohmann/json.hpp>

#include "common/models/family.h"

namespace rein::models {
namespace {

absl::Status Parse(const nlohmann::json& config, DecoderSpec* spec) {
  if (config.value("use_sliding_window", false)) {
    return absl::InvalidArgumentError("use_sliding_window: true is not supported for Qwen2");
  }
  spec->qkv_bias = true;
  return absl::OkStatus();
}

}  // namespace

extern constinit const ModelFamily kQwen2{"Qwen2ForCausalLM", "qwen2", &Parse,
                                          &LlamaCheckpointName};

}  // namespace rein::models
