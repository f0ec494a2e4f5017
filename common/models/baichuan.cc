// Baichuan and Baichuan 2 (Baichuan Inc., arXiv 2309.10305), in the layout of their authors: Llama; 13B with ALiBi instead
// of turned queries and keys, the second generation with a head whose rows have length 1.

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  // 7B alone says max_position_embeddings; 13B has no positions to run out of.
  const bool turned = config.Has({"max_position_embeddings"});
  ParseShape(config, {.max_positions = {turned ? "max_position_embeddings" : "model_max_length"}}, spec);
  config.Ignore({"model_max_length"});
  spec->ffn_dim = config.Count("intermediate_size");
  spec->gate.activation = ParseActivation(config, {"hidden_act"}, "silu");
  if (turned) {
    ParseRope(config, spec);
  } else {
    spec->alibi = Alibi::kAdded;
    for (LayerSpec& layer : EachLayer(spec)) layer.rope = -1;
  }
  // Only the second generation's files have the weight of its z-loss.
  spec->normalised_head = config.Has({"z_loss_weight"}) || spec->vocab_size == 125696;
  if (config.Number("z_loss_weight", 0) != 0) config.Error("z_loss_weight", "is not 0, which is not supported");
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  const std::string at = absl::StrCat("model.layers.", LayerOf(parameter.name));
  if (auto place = StackedQkvPlace(spec, parameter.name, at + ".self_attn.W_pack.")) return {*place};
  return LlamaPlaces(spec, parameter);
}

}  // namespace

extern constinit const ModelFamily kBaichuan{
    "BaichuanForCausalLM", "baichuan", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models
