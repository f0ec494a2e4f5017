// Falcon (TII, arXiv 2311.16867): LayerNorm, attention and feed-forward layer beside each other; 7B shares one key and
// value, 40B has groups, the RefinedWeb ones have ALiBi.

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseShape(config, {.num_layers = {"num_hidden_layers", "n_layer"}, .num_heads = {"num_attention_heads", "n_head"},
                      .norm_epsilon = {"layer_norm_epsilon"}, .default_epsilon = 1e-5, .tied_by_default = true},
             spec);
  const int64_t kv_heads = config.Count({"num_kv_heads", "n_head_kv"}, spec->num_heads);
  const bool grouped = config.Flag("new_decoder_architecture", false);
  const bool shared = config.Flag("multi_query", true);
  spec->num_kv_heads = grouped ? kv_heads : shared ? 1 : spec->num_heads;
  spec->block.parallel = config.Flag("parallel_attn", true);
  if (grouped && !spec->block.parallel) {
    config.Error("parallel_attn", "is false together with new_decoder_architecture, which is not supported");
  }
  spec->block.own_mlp_norm = grouped && config.Count("num_ln_in_parallel_attn", 2) == 2;
  config.Ignore({"num_ln_in_parallel_attn", "ff_factor"});
  spec->ffn_dim = config.Count("ffn_hidden_size", 4 * spec->model_dim);
  spec->gate.activation = ParseActivation(config, {"activation"}, "gelu");
  spec->gated = false;
  spec->norm = nn::NormKind::kLayer;
  spec->norm_bias = true;
  spec->qkv_bias = spec->output_bias = spec->mlp_bias = config.Flag("bias", false);
  ParseRope(config, spec);
  if (config.Flag("alibi", false)) {
    spec->alibi = Alibi::kScaled;
    for (LayerSpec& layer : EachLayer(spec)) layer.rope = -1;
  }
  config.Only("apply_residual_connection_post_layernorm", false);
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names =
      *new NameMap{{"embedding.", "transformer.word_embeddings."},
                   {"norm.", "transformer.ln_f."},
                   {"head.", "lm_head."},
                   {"layers.#.attention_norm.", "transformer.h.#.input_layernorm."},
                   {"layers.#.mlp_norm.", "transformer.h.#.post_attention_layernorm."},
                   {"layers.#.attention.output.", "transformer.h.#.self_attention.dense."},
                   {"layers.#.mlp.up.", "transformer.h.#.mlp.dense_h_to_4h."},
                   {"layers.#.mlp.down.", "transformer.h.#.mlp.dense_4h_to_h."}};
  const std::string at = absl::StrCat("transformer.h.", LayerOf(parameter.name));
  if (spec.block.own_mlp_norm && IsPart(parameter.name, "attention_norm.")) {
    return {WholeTensor(at + ".ln_attn." + Kind(parameter.name))};
  }
  if (spec.block.own_mlp_norm && IsPart(parameter.name, "mlp_norm.")) {
    return {WholeTensor(at + ".ln_mlp." + Kind(parameter.name))};
  }
  // One shared key and value is one group; a key and value for each head are groups of one query.
  if (auto place = PerGroupQkvPlace(spec, parameter.name, at + ".self_attention.query_key_value.")) {
    return {*place};
  }
  return {WholeTensor(MappedName(names, parameter.name))};
}

}  // namespace

extern constinit const ModelFamily kFalcon{
    "FalconForCausalLM", "falcon", &Parse, &Places, nullptr, "transformer."};

}  // namespace rein::models
