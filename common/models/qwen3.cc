// Qwen3 dense (Alibaba): Llama with RMSNorm on each head of q and k, and a head_dim of its own.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec);
  ParseQwenWindows(config, spec);
  spec->qk_norm = QkNorm::kHead;
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
}

}  // namespace

extern constinit const ModelFamily kQwen3{"Qwen3ForCausalLM", "qwen3", &Parse,
                                          &LlamaPlaces,       nullptr, "model."};

}  // namespace rein::models
