// OLMo 2 (Ai2, arXiv 2501.00656): norms behind each half of a block instead of before it, and over all of q and of k.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_epsilon = 1e-5});
  spec->block.pre_norm = false;
  spec->block.post_norm = true;
  spec->qk_norm = QkNorm::kWhole;
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
  config.Only("clip_qkv", nullptr);
}

std::vector<TensorPlace> Places(const DecoderSpec&, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap(Joined(
      {{"layers.#.attention_post_norm.", "model.layers.#.post_attention_layernorm."},
       {"layers.#.mlp_post_norm.", "model.layers.#.post_feedforward_layernorm."}},
      LlamaNames()));
  return {WholeTensor(MappedName(names, parameter.name))};
}

}  // namespace

extern constinit const ModelFamily kOlmo2{
    "Olmo2ForCausalLM", "olmo2", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models
