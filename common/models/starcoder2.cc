// StarCoder 2 (BigCode, arXiv 2402.19173): grouped-query attention with LayerNorm and a plain feed-forward layer.

#include <nlohmann/json.hpp>

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseShape(config, {.norm_epsilon = {"norm_epsilon"}, .default_epsilon = 1e-5, .tied_by_default = true}, spec);
  ParseKvHeads(config, spec);
  spec->ffn_dim = config.Count("intermediate_size");
  spec->gate.activation = ParseActivation(config, {"hidden_act"}, "gelu_pytorch_tanh");
  ParseRope(config, spec);
  ParseWindows(config, spec, [](int64_t) { return true; });
  spec->norm = nn::NormKind::kLayer;
  spec->norm_bias = true;
  spec->gated = false;
  spec->qkv_bias = spec->output_bias = spec->mlp_bias = config.Flag("use_bias", true);
  config.Only("mlp_type", "default");
  config.Only("norm_type", "layer_norm");
  config.Ignore({"activation_function", "layer_norm_epsilon",  // hidden_act and norm_epsilon are read
                 "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "scale_attn_weights"});
}

std::vector<TensorPlace> Places(const DecoderSpec&, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap(Joined({{"layers.#.mlp.up.", "model.layers.#.mlp.c_fc."},
                                                  {"layers.#.mlp.down.", "model.layers.#.mlp.c_proj."}},
                                                 LlamaNames()));
  return {WholeTensor(MappedName(names, parameter.name))};
}

}  // namespace

extern constinit const ModelFamily kStarcoder2{
    "Starcoder2ForCausalLM", "starcoder2", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models
