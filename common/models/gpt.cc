#include "common/models/gpt.h"

#include "common/models/family_keys.h"

namespace rein::models {

void ParseGptLayers(DecoderSpec* spec) {
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
