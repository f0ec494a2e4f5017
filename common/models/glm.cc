// GLM-4-9B in the layout of `transformers` (Zhipu AI): half of each head turns, in neighbouring pairs.

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_partial = 0.5});
  spec->rope_interleaved = true;
  spec->qkv_bias = config.Flag("attention_bias", true);
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  const std::string at = absl::StrCat("model.layers.", LayerOf(parameter.name));
  if (auto place = StackedGateUpPlace(spec, parameter.name, at + ".mlp.gate_up_proj.")) return {*place};
  return LlamaPlaces(spec, parameter);
}

}  // namespace

extern constinit const ModelFamily kGlm{
    "GlmForCausalLM", "glm", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models
