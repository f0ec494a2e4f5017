#include "common/models/gemma.h"

#include <cmath>

#include "common/models/family_keys.h"

namespace rein::models {

void ParseGemmaKeys(ConfigReader& config, DecoderSpec* spec) {
  ParseShape(config, {.tied_by_default = true}, spec);
  spec->head_dim = 256;
  ParseKvHeads(config, spec);
  spec->ffn_dim = config.Count("intermediate_size");
  spec->gate.activation = ParseActivation(config, {"hidden_activation", "hidden_act"}, "gelu_pytorch_tanh");
  spec->norm = nn::NormKind::kRmsPlusOne;
  spec->block.post_norm = true;
  spec->embedding_multiplier = std::sqrt(static_cast<double>(spec->model_dim));
  spec->score_scale = 1 / std::sqrt(config.Positive("query_pre_attn_scalar", 256));
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
  spec->logit_softcap =
      config.Has({"final_logit_softcapping"}) ? config.Positive("final_logit_softcapping", 30) : 0;
  config.Only("use_bidirectional_attention", false);
  config.Ignore({"cache_implementation"});
}

std::vector<TensorPlace> GemmaPlaces(const DecoderSpec&, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap(Joined(
      {{"layers.#.attention_post_norm.", "model.layers.#.post_attention_layernorm."},
       {"layers.#.mlp_norm.", "model.layers.#.pre_feedforward_layernorm."},
       {"layers.#.mlp_post_norm.", "model.layers.#.post_feedforward_layernorm."}},
      LlamaNames()));
  return {WholeTensor(MappedName(names, parameter.name))};
}

}  // namespace rein::models
