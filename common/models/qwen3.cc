// Qwen3 dense (Alibaba): Llama with RMSNorm on each head of q and k, and a head_dim of its own.

#include <nlohmann/json.hpp>

#include "common/models/family.h"

namespace rein::models {
namespace {

absl::Status Parse(const nlohmann::json& config, DecoderSpec* spec) {
  if (config.value("use_sliding_window", false)) {
    return absl::InvalidArgumentError("use_sliding_window: true is not supported for Qwen3");
  }
  spec->qk_norm = true;
  spec->qkv_bias = spec->output_bias = config.value("attention_bias", false);
  return absl::OkStatus();
}

}  // namespace

extern constinit const ModelFamily kQwen3{"Qwen3ForCausalLM", "qwen3", &Parse,
                                          &LlamaCheckpointName};

}  // namespace rein::models
