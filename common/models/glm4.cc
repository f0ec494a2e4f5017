// GLM-4-0414 (Zhipu AI): GLM-4 with a norm behind each half of a block too.

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_partial = 0.5});
  spec->rope_interleaved = true;
  spec->qkv_bias = config.Flag("attention_bias", true);
  spec->block.post_norm = true;
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap(
      Joined({{"layers.#.attention_post_norm.", "model.layers.#.post_self_attn_layernorm."},
              {"layers.#.mlp_post_norm.", "model.layers.#.post_mlp_layernorm."}},
             LlamaNames()));
  const std::string at = absl::StrCat("model.layers.", LayerOf(parameter.name));
  if (auto place = StackedGateUpPlace(spec, parameter.name, at + ".mlp.gate_up_proj.")) return {*place};
  return {WholeTensor(MappedName(names, parameter.name))};
}

}  // namespace

extern constinit const ModelFamily kGlm4{
    "Glm4ForCausalLM", "glm4", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models
