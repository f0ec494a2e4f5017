// ChatGLM 2 and 3 and GLM-4-9B (Zhipu AI, arXiv 2406.12793), in the layout of their authors: GLM-4 under other names.

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseShape(config, {.num_layers = {"num_layers", "num_hidden_layers"}, .max_positions = {"seq_length"},
                      .norm_epsilon = {"layernorm_epsilon"}, .default_epsilon = 1e-5},
             spec);
  spec->vocab_size = config.Count("padded_vocab_size", spec->vocab_size);
  spec->head_dim = config.Count("kv_channels", spec->head_dim);
  spec->ffn_dim = config.Count("ffn_hidden_size");
  const int64_t groups = config.Count("multi_query_group_num", 1);
  if (config.Flag("multi_query_attention", false)) spec->num_kv_heads = groups;
  spec->rotary_dim = spec->head_dim / 2;
  spec->rope_interleaved = true;
  spec->ropes[0].theta = 10000 * config.Positive("rope_ratio", 1);
  spec->qkv_bias = config.Flag("add_qkv_bias", false) || config.Flag("add_bias_linear", false);
  for (const char* key : {"rmsnorm", "post_layer_norm", "original_rope"}) config.Only(key, true);
  for (const char* key : {"add_bias_linear", "apply_residual_connection_post_layernorm"}) config.Only(key, false);
  config.Only("pre_seq_len", nullptr);
  config.Ignore({"apply_query_key_layer_scaling", "attention_softmax_in_fp32", "bias_dropout_fusion",
                 "fp32_residual_connection", "prefix_projection"});
  config.Only("quantization_bit", 0);
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names =
      *new NameMap{{"embedding.", "transformer.embedding.word_embeddings."},
                   {"norm.", "transformer.encoder.final_layernorm."},
                   {"head.", "transformer.output_layer."},
                   {"layers.#.attention_norm.", "transformer.encoder.layers.#.input_layernorm."},
                   {"layers.#.mlp_norm.", "transformer.encoder.layers.#.post_attention_layernorm."},
                   {"layers.#.attention.output.", "transformer.encoder.layers.#.self_attention.dense."},
                   {"layers.#.mlp.down.", "transformer.encoder.layers.#.mlp.dense_4h_to_h."}};
  const std::string& name = parameter.name;
  const std::string at = absl::StrCat("transformer.encoder.layers.", LayerOf(name));
  if (auto place = StackedQkvPlace(spec, name, at + ".self_attention.query_key_value.")) return {*place};
  if (auto place = StackedGateUpPlace(spec, name, at + ".mlp.dense_h_to_4h.")) return {*place};
  return {WholeTensor(MappedName(names, name))};
}

// A buffer of rotary frequencies.
bool IsBuffer(const DecoderSpec&, absl::string_view tensor) {
  return tensor == "transformer.rotary_pos_emb.inv_freq";
}

}  // namespace

extern constinit const ModelFamily kChatglm{
    "ChatGLMModel", "chatglm", &Parse, &Places, &IsBuffer, "transformer."};

}  // namespace rein::models
