#include "common/models/gpt.h"

#include "common/models/family_keys.h"

namespace rein::models {

void ParseGptKeys(ConfigReader& config, const char* default_activation, DecoderSpec* spec) {
  ParseShape(config, {.model_dim = {"n_embd", "hidden_size"}, .num_layers = {"n_layer", "num_hidden_layers"},
                      .num_heads = {"n_head", "num_attention_heads"},
                      .max_positions = {"n_positions", "max_position_embeddings"},
                      .norm_epsilon = {"layer_norm_epsilon"}, .default_epsilon = 1e-5, .tied_by_default = true},
             spec);
  spec->ffn_dim = config.Count("n_inner", 4 * spec->model_dim);
  spec->gate.activation = ParseActivation(config, {"activation_function"}, default_activation);
  config.Only("scale_attn_weights", true);
  config.Only("add_cross_attention", false);
  spec->norm = nn::NormKind::kLayer;
  spec->norm_bias = spec->qkv_bias = spec->output_bias = spec->mlp_bias = true;
  spec->gated = false;
  spec->position_rows = spec->max_positions;
  for (LayerSpec& layer : EachLayer(spec)) layer.rope = -1;
}

std::string GptName(absl::string_view parameter) {
  static const auto& names = *new NameMap{
      {"embedding.", "transformer.wte."},
      {"position_embedding.", "transformer.wpe."},
      {"norm.", "transformer.ln_f."},
      {"head.", "lm_head."},
      {"layers.#.attention_norm.", "transformer.h.#.ln_1."},
      {"layers.#.mlp_norm.", "transformer.h.#.ln_2."},
      {"layers.#.attention.output.", "transformer.h.#.attn.c_proj."},
      {"layers.#.mlp.up.", "transformer.h.#.mlp.c_fc."},
      {"layers.#.mlp.down.", "transformer.h.#.mlp.c_proj."}};
  return MappedName(names, parameter);
}

}  // namespace rein::models
