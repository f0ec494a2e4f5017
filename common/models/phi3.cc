// Phi-3 and Phi-4 (Microsoft): Llama with fused projections on disk; the long editions stretch by longrope.

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_epsilon = 1e-5});
  ParseWindows(config, spec, [](int64_t) { return true; });
  for (const char* key : {"attention_bias", "mlp_bias", "lm_head_bias"}) config.Only(key, false);
  config.Ignore({"full_attn_mod", "interpolate_factor"});
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  const std::string at = absl::StrCat("model.layers.", LayerOf(parameter.name));
  if (auto place = StackedQkvPlace(spec, parameter.name, at + ".self_attn.qkv_proj.")) return {*place};
  if (auto place = StackedGateUpPlace(spec, parameter.name, at + ".mlp.gate_up_proj.")) return {*place};
  return LlamaPlaces(spec, parameter);
}

}  // namespace

extern constinit const ModelFamily kPhi3{
    "Phi3ForCausalLM", "phi3", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models
