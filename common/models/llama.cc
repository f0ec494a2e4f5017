// Llama 2, 3, 3.1, 3.2 (Meta) and what copies them: SmolLM2, Yi, DeepSeek-LLM.

#include <nlohmann/json.hpp>

#include "common/models/family.h"

namespace rein::models {
namespace {

absl::Status Parse(const nlohmann::json& config, DecoderSpec* spec) {
  spec->qkv_bias = spec->output_bias = config.value("attention_bias", false);
  spec->mlp_bias = config.value("mlp_bias", false);
  return absl::OkStatus();
}

}  // namespace

extern constinit const ModelFamily kLlama{"LlamaForCausalLM", "llama", &Parse,
                                          &LlamaCheckpointName};

}  // namespace rein::models
