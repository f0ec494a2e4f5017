// OPT and Galactica (Meta, arXiv 2205.01068, 2211.09085): learned positions from row 2 on, LayerNorm, biases.

#include <nlohmann/json.hpp>

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseShape(config, {.norm_epsilon = {"layer_norm_eps"}, .default_epsilon = 1e-5, .tied_by_default = true}, spec);
  spec->ffn_dim = config.Count("ffn_dim");
  spec->gate.activation = ParseActivation(config, {"activation_function"}, "relu");
  spec->gated = false;
  spec->norm = nn::NormKind::kLayer;
  spec->norm_weights = spec->norm_bias = config.Flag("layer_norm_elementwise_affine", true);
  spec->qkv_bias = spec->output_bias = spec->mlp_bias = config.Flag("enable_bias", true);
  spec->position_rows = spec->max_positions + 2;
  spec->position_offset = 2;
  for (LayerSpec& layer : EachLayer(spec)) layer.rope = -1;
  if (!config.Flag("do_layer_norm_before", true)) {  // OPT-350M alone
    spec->block.pre_norm = false;
    spec->block.sum_norm = true;
  }
  config.Only("_remove_final_layer_norm", false);
  const int64_t width = config.Has({"word_embed_proj_dim"}) ? config.Count("word_embed_proj_dim") : spec->model_dim;
  if (width != spec->model_dim) spec->embedding_dim = width;
  config.Ignore({"layerdrop", "prefix"});
}

std::vector<TensorPlace> Places(const DecoderSpec&, const weights::ParameterSpec& parameter) {
  static const auto& names =
      *new NameMap{{"embedding.", "model.decoder.embed_tokens."},
                   {"project_in.", "model.decoder.project_in."},
                   {"project_out.", "model.decoder.project_out."},
                   {"position_embedding.", "model.decoder.embed_positions."},
                   {"norm.", "model.decoder.final_layer_norm."},
                   {"head.", "lm_head."},
                   {"layers.#.attention_norm.", "model.decoder.layers.#.self_attn_layer_norm."},
                   {"layers.#.mlp_norm.", "model.decoder.layers.#.final_layer_norm."},
                   {"layers.#.attention.q.", "model.decoder.layers.#.self_attn.q_proj."},
                   {"layers.#.attention.k.", "model.decoder.layers.#.self_attn.k_proj."},
                   {"layers.#.attention.v.", "model.decoder.layers.#.self_attn.v_proj."},
                   {"layers.#.attention.output.", "model.decoder.layers.#.self_attn.out_proj."},
                   {"layers.#.mlp.up.", "model.decoder.layers.#.fc1."},
                   {"layers.#.mlp.down.", "model.decoder.layers.#.fc2."}};
  return {WholeTensor(MappedName(names, parameter.name))};
}

}  // namespace

extern constinit const ModelFamily kOpt{
    "OPTForCausalLM", "opt", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models
