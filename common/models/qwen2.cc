// Qwen1.5, Qwen2, Qwen2.5 and QwQ (Alibaba): Llama with biases on q, k and v.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec);
  ParseQwenWindows(config, spec);
  spec->qkv_bias = true;
}

}  // namespace

extern constinit const ModelFamily kQwen2{"Qwen2ForCausalLM", "qwen2", &Parse,
                                          &LlamaPlaces,       nullptr, "model."};

}  // namespace rein::models
