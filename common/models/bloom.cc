// BLOOM (BigScience, arXiv 2211.05100): ALiBi instead of positions, LayerNorm also behind the embedding.

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseShape(config, {.model_dim = {"hidden_size", "n_embed", "n_embd"}, .num_layers = {"n_layer", "num_hidden_layers"},
                      .num_heads = {"n_head", "num_attention_heads"},
                      .max_positions = {"seq_length", "max_position_embeddings"},  // ALiBi itself has no end
                      .norm_epsilon = {"layer_norm_epsilon"}, .default_epsilon = 1e-5, .tied_by_default = true},
             spec);
  spec->ffn_dim = 4 * spec->model_dim;
  spec->gate.activation = nn::Activation::kGeluTanh;
  spec->gated = false;
  spec->norm = nn::NormKind::kLayer;
  spec->norm_bias = spec->qkv_bias = spec->output_bias = spec->mlp_bias = true;
  spec->embedding_norm = true;
  spec->alibi = Alibi::kAdded;
  for (LayerSpec& layer : EachLayer(spec)) layer.rope = -1;
  config.Only("apply_residual_connection_post_layernorm", false);
  config.Ignore({"attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "n_inner",
                 "offset_alibi", "skip_bias_add", "skip_bias_add_qkv", "slow_but_exact", "unk_token_id"});
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names =
      *new NameMap{{"embedding_norm.", "transformer.word_embeddings_layernorm."},
                   {"embedding.", "transformer.word_embeddings."},
                   {"norm.", "transformer.ln_f."},
                   {"head.", "lm_head."},
                   {"layers.#.attention_norm.", "transformer.h.#.input_layernorm."},
                   {"layers.#.mlp_norm.", "transformer.h.#.post_attention_layernorm."},
                   {"layers.#.attention.output.", "transformer.h.#.self_attention.dense."},
                   {"layers.#.mlp.up.", "transformer.h.#.mlp.dense_h_to_4h."},
                   {"layers.#.mlp.down.", "transformer.h.#.mlp.dense_4h_to_h."}};
  const std::string at = absl::StrCat("transformer.h.", LayerOf(parameter.name));
  if (auto place = PerGroupQkvPlace(spec, parameter.name, at + ".self_attention.query_key_value.")) {
    return {*place};
  }
  return {WholeTensor(MappedName(names, parameter.name))};
}

}  // namespace

extern constinit const ModelFamily kBloom{
    "BloomForCausalLM", "bloom", &Parse, &Places, nullptr, "transformer."};

}  // namespace rein::models
