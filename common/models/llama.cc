// Llama 1 to 3.3 and Code Llama (Meta), and what copies them: SmolLM2, Yi, DeepSeek-LLM, DeepSeek-Coder.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec);
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
  spec->mlp_bias = config.Flag("mlp_bias", false);
}

}  // namespace

extern constinit const ModelFamily kLlama{"LlamaForCausalLM", "llama", &Parse,
                                          &LlamaPlaces,       nullptr, "model."};

}  // namespace rein::models
