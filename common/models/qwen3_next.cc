// Qwen3-Next (Alibaba): three gated delta nets for one layer of gated attention, experts everywhere, zero-centred norms.

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_partial = 0.25});
  spec->norm = nn::NormKind::kRmsPlusOne;
  spec->qk_norm = QkNorm::kHead;
  spec->output_gate = true;
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
  nn::DeltaShape& delta = spec->delta;
  delta.key_heads = config.Count("linear_num_key_heads", 16);
  delta.value_heads = config.Count("linear_num_value_heads", 32);
  delta.key_dim = config.Count("linear_key_head_dim", 128);
  delta.value_dim = config.Count("linear_value_head_dim", 128);
  delta.taps = config.Count("linear_conv_kernel_dim", 4);
  if (delta.value_heads % delta.key_heads != 0) {
    config.Error("linear_num_key_heads", absl::StrCat("is ", delta.key_heads, ", which does not divide ",
                                                      delta.value_heads, " value heads"));
  }
  config.Only("use_sliding_window", false);
  config.Ignore({"sliding_window", "max_window_layers"});
  ParseSparseLayers(config, spec);
  const int64_t interval = config.Count("full_attention_interval", 4);
  const std::vector<std::string> types = config.Texts("layer_types");
  std::vector<LayerSpec>& layers = EachLayer(spec);
  if (!types.empty() && types.size() != layers.size()) {
    return config.Error("layer_types", absl::StrCat("has ", types.size(), " layers, want ", layers.size()));
  }
  for (size_t n = 0; n < layers.size(); ++n) {
    layers[n].recurrent = types.empty() ? (static_cast<int64_t>(n) + 1) % interval != 0
                                        : types[n] == "linear_attention";
    if (!types.empty() && !layers[n].recurrent && types[n] != "full_attention") {
      config.Error("layer_types", absl::StrCat("names '", types[n], "', want linear_attention or full_attention"));
    }
  }
  ExpertSpec& experts = spec->experts;
  experts.ffn_dim = config.Count("moe_intermediate_size", 512);
  experts.shared_ffn_dim = config.Count("shared_expert_intermediate_size", 512);
  experts.shared_gate = true;
  experts.routing.experts = config.Count({"num_experts", "num_local_experts"}, 512);
  experts.routing.chosen = config.Count("num_experts_per_tok", 10);
  experts.routing.normalised = config.Flag("norm_topk_prob", true);
}

// Parts of in_proj_qkvz and in_proj_ba, which stand in blocks of one key head with its value heads.
std::optional<TensorPlace> DeltaPlace(const DecoderSpec& spec, absl::string_view name,
                                      const std::string& at) {
  const nn::DeltaShape& n = spec.delta;
  const int64_t d = spec.model_dim, groups = n.key_heads, each = n.value_heads / n.key_heads,
                values = each * n.value_dim, rows = 2 * n.key_dim + 2 * values;
  const std::string qkvz = at + "in_proj_qkvz.weight", ba = at + "in_proj_ba.weight";
  if (IsPart(name, "delta.q.")) return GroupedRowsOf(qkvz, groups, rows, d, 0, n.key_dim);
  if (IsPart(name, "delta.k.")) return GroupedRowsOf(qkvz, groups, rows, d, n.key_dim, n.key_dim);
  if (IsPart(name, "delta.v.")) return GroupedRowsOf(qkvz, groups, rows, d, 2 * n.key_dim, values);
  if (IsPart(name, "delta.z.")) return GroupedRowsOf(qkvz, groups, rows, d, 2 * n.key_dim + values, values);
  if (IsPart(name, "delta.b.")) return GroupedRowsOf(ba, groups, 2 * each, d, 0, each);
  if (IsPart(name, "delta.a.")) return GroupedRowsOf(ba, groups, 2 * each, d, each, each);
  if (!IsPart(name, "delta.conv.")) return std::nullopt;
  return TensorPlace{at + "conv1d.weight", {n.mixed_dim(), 1, n.taps}, 0, {n.mixed_dim(), n.taps}, {n.taps, 1}};
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap(
      Joined({{"layers.#.delta.decay", "model.layers.#.linear_attn.A_log"},
              {"layers.#.delta.dt_bias", "model.layers.#.linear_attn.dt_bias"},
              {"layers.#.delta.norm.", "model.layers.#.linear_attn.norm."},
              {"layers.#.delta.output.", "model.layers.#.linear_attn.out_proj."},
              {"layers.#.shared_gate.", "model.layers.#.mlp.shared_expert_gate."},
              {"layers.#.shared.gate.", "model.layers.#.mlp.shared_expert.gate_proj."},
              {"layers.#.shared.up.", "model.layers.#.mlp.shared_expert.up_proj."},
              {"layers.#.shared.down.", "model.layers.#.mlp.shared_expert.down_proj."}},
             LlamaNames()));
  const std::string& name = parameter.name;
  const std::string at = absl::StrCat("model.layers.", LayerOf(name));
  if (auto place = DeltaPlace(spec, name, at + ".linear_attn.")) return {*place};
  const bool gate = IsPart(name, "attention.gate.");
  if (gate || IsPart(name, "attention.q.")) {  // for each head its query, then its gate
    const int64_t c = spec.head_dim, columns = Kind(name) == "weight" ? spec.model_dim : 0;
    return {GroupedRowsOf(absl::StrCat(at, ".self_attn.q_proj.", Kind(name)), spec.num_heads, 2 * c, columns,
                          gate ? c : 0, c)};
  }
  return WithFusedExperts(spec, name, MappedName(names, name));
}

bool IsMtp(const DecoderSpec&, absl::string_view tensor) { return absl::StartsWith(tensor, "mtp."); }

}  // namespace

extern constinit const ModelFamily kQwen3Next{
    "Qwen3NextForCausalLM", "qwen3_next", &Parse, &Places, &IsMtp, "model."};

}  // namespace rein::models
