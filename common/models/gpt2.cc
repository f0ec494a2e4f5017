// GPT-2 (OpenAI): learned positions, LayerNorm, and projections that stand transposed on disk.

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"
#include "common/models/gpt.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseGptKeys(config, "gelu_new", spec);
  config.Only("scale_attn_by_inverse_layer_idx", false);
  config.Ignore({"n_ctx", "reorder_and_upcast_attn", "summary_activation", "summary_proj_to_labels",
                 "summary_type", "summary_use_proj"});
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  const std::string& name = parameter.name;
  const int64_t d = spec.model_dim;
  const std::string at = absl::StrCat("transformer.h.", LayerOf(name));
  if (Kind(name) == "bias") {
    if (auto place = StackedQkvPlace(spec, name, at + ".attn.c_attn.")) return {*place};
    return {WholeTensor(GptName(name))};
  }
  const int part = IsPart(name, "attention.q.") ? 0 : IsPart(name, "attention.k.") ? 1 : IsPart(name, "attention.v.") ? 2 : -1;
  if (part >= 0) return {TransposedOf(at + ".attn.c_attn.weight", d, 3 * d, part * d, d)};
  const bool transposed = IsPart(name, "attention.output.") || IsPart(name, "mlp.up.") || IsPart(name, "mlp.down.");
  if (!transposed) return {WholeTensor(GptName(name))};
  return {TransposedOf(GptName(name), parameter.shape[1], parameter.shape[0], 0, parameter.shape[0])};
}

// Buffers of the causal mask.
bool IsMask(const DecoderSpec&, absl::string_view tensor) {
  return absl::EndsWith(tensor, ".attn.bias") || absl::EndsWith(tensor, ".attn.masked_bias");
}

}  // namespace

extern constinit const ModelFamily kGpt2{
    "GPT2LMHeadModel", "gpt2", &Parse, &Places, &IsMask, "transformer."};

}  // namespace rein::models
