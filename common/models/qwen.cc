// Qwen, the first (Alibaba, arXiv 2309.16609), in the layout of its authors: Llama with biases on q, k and v.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseShape(config, {.norm_epsilon = {"layer_norm_epsilon"}}, spec);
  // Beyond it queries grow by the logarithm of the length and frequencies stretch; no sequence reaches there.
  spec->max_positions = std::min(spec->max_positions, config.Count("seq_length", spec->max_positions));
  config.Ignore({"use_dynamic_ntk", "use_logn_attn"});
  spec->head_dim = config.Count("kv_channels", spec->head_dim);
  spec->ffn_dim = config.Count("intermediate_size") / 2;  // of gate and up together
  spec->ropes[0].theta = config.Positive("rotary_emb_base", 10000);
  spec->qkv_bias = true;
  config.Only("rotary_pct", 1.0);
  config.Only("no_bias", true);
  config.Only("scale_attn_weights", true);
  config.Ignore({"bf16", "fp16", "fp32", "onnx_safe", "softmax_in_fp32", "use_cache_kernel", "use_cache_quantization",
                 "use_flash_attn"});
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap{{"embedding.", "transformer.wte."},
                                          {"norm.", "transformer.ln_f."},
                                          {"head.", "lm_head."},
                                          {"layers.#.attention_norm.", "transformer.h.#.ln_1."},
                                          {"layers.#.mlp_norm.", "transformer.h.#.ln_2."},
                                          {"layers.#.attention.output.", "transformer.h.#.attn.c_proj."},
                                          {"layers.#.mlp.gate.", "transformer.h.#.mlp.w2."},
                                          {"layers.#.mlp.up.", "transformer.h.#.mlp.w1."},
                                          {"layers.#.mlp.down.", "transformer.h.#.mlp.c_proj."}};
  const std::string at = absl::StrCat("transformer.h.", LayerOf(parameter.name));
  if (auto place = StackedQkvPlace(spec, parameter.name, at + ".attn.c_attn.")) return {*place};
  return {WholeTensor(MappedName(names, parameter.name))};
}

}  // namespace

extern constinit const ModelFamily kQwen{
    "QWenLMHeadModel", "qwen", &Parse, &Places, nullptr, "transformer."};

}  // namespace rein::models
