#include "common/models/family_keys.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace rein::models {
namespace {

using nlohmann::json;

double YarnFactor(double factor, double by) {
  return factor <= 1 ? 1 : 0.1 * by * std::log(factor) + 1;
}

void ParseYarn(ConfigReader& rope, RopeScaling* scaling) {
  scaling->kind = RopeScaling::Kind::kYarn;
  scaling->beta_fast = rope.Positive("beta_fast", 32);
  scaling->beta_slow = rope.Positive("beta_slow", 1);
  scaling->truncate = rope.Flag("truncate", true);
  const double mscale = rope.Number("mscale", 0), all_dim = rope.Number("mscale_all_dim", 0);
  double factor = YarnFactor(scaling->factor, 1);
  if (mscale != 0 && all_dim != 0) {
    factor = YarnFactor(scaling->factor, mscale) / YarnFactor(scaling->factor, all_dim);
  }
  scaling->attention_factor = rope.Positive("attention_factor", factor);
}

// Only the short factors are used: sequences end at the original context (see ParseRope).
void ParseLongRope(ConfigReader& rope, int64_t max_positions, RopeScaling* scaling) {
  scaling->kind = RopeScaling::Kind::kLongRope;
  scaling->short_factors = rope.Numbers("short_factor");
  rope.Ignore({"long_factor"});
  const auto original = static_cast<double>(scaling->original_max_positions);
  const double ratio = rope.Positive("factor", static_cast<double>(max_positions) / original);
  const double factor = ratio <= 1 ? 1 : std::sqrt(1 + std::log(ratio) / std::log(original));
  scaling->attention_factor = rope.Positive("attention_factor", factor);
}

void ParseLlama3(ConfigReader& rope, RopeScaling* scaling) {
  scaling->kind = RopeScaling::Kind::kLlama3;
  scaling->low_freq_factor = rope.Positive("low_freq_factor", 1);
  scaling->high_freq_factor = rope.Positive("high_freq_factor", 4);
  if (!(scaling->high_freq_factor > scaling->low_freq_factor)) {
    rope.Error("high_freq_factor", absl::StrCat("is ", scaling->high_freq_factor,
                                                ", want above low_freq_factor, which is ",
                                                scaling->low_freq_factor));
  }
}

}  // namespace

void ParseShape(ConfigReader& config, const ShapeKeys& keys, DecoderSpec* spec) {
  spec->vocab_size = config.Count("vocab_size");
  spec->model_dim = config.Count(keys.model_dim);
  spec->num_layers = config.Count(keys.num_layers);
  if (spec->num_layers > 1024) {
    config.Error(keys.num_layers[0], absl::StrCat("is ", spec->num_layers, ", want at most 1024"));
    spec->num_layers = 1;
  }
  spec->num_heads = spec->num_kv_heads = config.Count(keys.num_heads);
  spec->head_dim = std::max<int64_t>(1, spec->model_dim / spec->num_heads);
  spec->max_positions = config.Count(keys.max_positions, 2048);
  spec->norm_epsilon = config.Positive(keys.norm_epsilon, keys.default_epsilon);
  spec->tied_head = config.Flag("tie_word_embeddings", keys.tied_by_default);
}

void ParseKvHeads(ConfigReader& config, DecoderSpec* spec) {
  spec->num_kv_heads = config.Count("num_key_value_heads", spec->num_heads);
  spec->head_dim = config.Count("head_dim", spec->head_dim);
}

nn::Activation ParseActivation(ConfigReader& config, const std::vector<const char*>& names,
                               const char* fallback) {
  const json* value = config.Find(names);
  const std::string name = value == nullptr ? fallback : value->is_string() ? value->get<std::string>() : "";
  if (name == "silu" || name == "swish") return nn::Activation::kSilu;
  if (name == "gelu") return nn::Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh") {
    return nn::Activation::kGeluTanh;
  }
  if (name == "relu") return nn::Activation::kRelu;
  if (name == "relu2") return nn::Activation::kReluSquared;
  config.Error(names[0], absl::StrCat("is ", value->dump(),
                                      ", want silu, gelu, gelu_new, gelu_pytorch_tanh, relu or relu2"));
  return nn::Activation::kSilu;
}

RopeSpec ParseRopeObject(ConfigReader& rope, double default_theta, int64_t max_positions,
                         int64_t original_max_positions, double* partial) {
  RopeSpec spec;
  spec.theta = rope.Positive("rope_theta", default_theta);
  *partial = rope.Positive("partial_rotary_factor", *partial);
  const json* kind_value = rope.Find({"rope_type", "type"});
  const std::string kind =
      kind_value != nullptr && kind_value->is_string() ? kind_value->get<std::string>() : "default";
  RopeScaling& scaling = spec.scaling;
  scaling.original_max_positions = rope.Count("original_max_position_embeddings", original_max_positions);
  if (kind == "longrope" || kind == "su") {
    ParseLongRope(rope, max_positions, &scaling);
    return spec;
  }
  scaling.factor = rope.Positive("factor", 1);
  if (kind == "default") {
    scaling = {};
  } else if (kind == "linear") {
    scaling.kind = RopeScaling::Kind::kLinear;
  } else if (kind == "dynamic") {
    scaling = {};  // differs beyond max_position_embeddings only, and no sequence reaches there
  } else if (kind == "llama3") {
    ParseLlama3(rope, &scaling);
  } else if (kind == "yarn") {
    ParseYarn(rope, &scaling);
  } else {
    rope.Error("rope_type", absl::StrCat("is '", kind,
                                         "', want default, linear, dynamic, llama3, yarn or longrope"));
  }
  return spec;
}

void ParseRope(ConfigReader& config, DecoderSpec* spec, double default_theta, double default_partial) {
  const double theta = config.Positive("rope_theta", default_theta);
  double partial = config.Positive("partial_rotary_factor", default_partial);
  const int64_t original = config.Count("original_max_position_embeddings", spec->max_positions);
  const json* rope = config.Find({"rope_parameters", "rope_scaling"});  // the newer place first
  if (rope != nullptr && rope->is_object()) {
    ConfigReader inner(*rope, "rope_scaling");
    spec->ropes[0] = ParseRopeObject(inner, theta, spec->max_positions, original, &partial);
    config.Merge(inner);
  } else {
    spec->ropes[0].theta = theta;
    if (rope != nullptr) config.Error("rope_scaling", absl::StrCat("is ", rope->dump(), ", want an object"));
  }
  spec->rotary_dim = static_cast<int64_t>(static_cast<double>(spec->head_dim) * partial);
  const RopeScaling& scaling = spec->ropes[0].scaling;
  if (scaling.kind != RopeScaling::Kind::kLongRope) return;
  // Frequencies that depend on the length would make a token's log-prob depend on what follows it, so that
  // trainer and generator could not agree: the model is used within its original context.
  spec->max_positions = std::min(spec->max_positions, scaling.original_max_positions);
  if (static_cast<int64_t>(scaling.short_factors.size()) != spec->rotary_dim / 2) {
    config.Error("rope_scaling.short_factor",
                 absl::StrCat("has ", scaling.short_factors.size(), " numbers, want ",
                              spec->rotary_dim / 2, ", half of the rotated dims of a head"));
  }
}

std::vector<LayerSpec>& EachLayer(DecoderSpec* spec) {
  spec->layers.resize(static_cast<size_t>(spec->num_layers));
  return spec->layers;
}

void ParseWindows(ConfigReader& config, DecoderSpec* spec,
                  const std::function<bool(int64_t layer)>& slides) {
  const int64_t window = config.Has({"sliding_window"}) ? config.Count("sliding_window") : 0;
  const std::vector<std::string> types = config.Texts("layer_types");
  std::vector<LayerSpec>& layers = EachLayer(spec);
  if (!types.empty() && types.size() != layers.size()) {
    config.Error("layer_types", absl::StrCat("has ", types.size(), " layers, want ", layers.size()));
    return;
  }
  for (size_t n = 0; n < layers.size(); ++n) {
    bool sliding = types.empty() ? slides(static_cast<int64_t>(n)) : types[n] == "sliding_attention";
    if (!types.empty() && !sliding && types[n] != "full_attention") {
      config.Error("layer_types", absl::StrCat("names '", types[n],
                                               "', want full_attention or sliding_attention"));
    }
    if (sliding && window < spec->max_positions) layers[n].window = window;
  }
}

void ParseQwenWindows(ConfigReader& config, DecoderSpec* spec) {
  const int64_t first = static_cast<int64_t>(config.Number("max_window_layers", 28));
  if (config.Flag("use_sliding_window", false)) {
    return ParseWindows(config, spec, [first](int64_t layer) { return layer >= first; });
  }
  config.Ignore({"sliding_window"});  // stands in every file
  for (const std::string& type : config.Texts("layer_types")) {
    if (type == "full_attention") continue;
    config.Error("layer_types", "names '" + type + "' although use_sliding_window is false");
  }
}

void ParseLlamaKeys(ConfigReader& config, DecoderSpec* spec, const ShapeKeys& keys) {
  ParseShape(config, keys, spec);
  ParseKvHeads(config, spec);
  spec->ffn_dim = config.Count("intermediate_size");
  spec->gate.activation = ParseActivation(config, keys.activation, keys.default_activation);
  ParseRope(config, spec, keys.default_theta, keys.default_partial);
}

void ParseSparseLayers(ConfigReader& config, DecoderSpec* spec) {
  const int64_t step = config.Count("decoder_sparse_step", 1);
  const std::vector<double> dense = config.Numbers("mlp_only_layers");
  std::vector<LayerSpec>& layers = EachLayer(spec);
  for (size_t n = 0; n < layers.size(); ++n) {
    const bool listed = std::find(dense.begin(), dense.end(), static_cast<double>(n)) != dense.end();
    layers[n].sparse = !listed && (static_cast<int64_t>(n) + 1) % step == 0;
  }
}

const NameMap& LlamaNames() {
  static const auto& names = *new NameMap{
      {"embedding.", "model.embed_tokens."},
      {"norm.", "model.norm."},
      {"head.", "lm_head."},
      {"layers.#.attention_norm.", "model.layers.#.input_layernorm."},
      {"layers.#.mlp_norm.", "model.layers.#.post_attention_layernorm."},
      {"layers.#.attention.q.", "model.layers.#.self_attn.q_proj."},
      {"layers.#.attention.k.", "model.layers.#.self_attn.k_proj."},
      {"layers.#.attention.v.", "model.layers.#.self_attn.v_proj."},
      {"layers.#.attention.output.", "model.layers.#.self_attn.o_proj."},
      {"layers.#.attention.q_norm.", "model.layers.#.self_attn.q_norm."},
      {"layers.#.attention.k_norm.", "model.layers.#.self_attn.k_norm."},
      {"layers.#.mlp.gate.", "model.layers.#.mlp.gate_proj."},
      {"layers.#.mlp.up.", "model.layers.#.mlp.up_proj."},
      {"layers.#.mlp.down.", "model.layers.#.mlp.down_proj."},
      {"layers.#.router.", "model.layers.#.mlp.gate."},
      {"layers.#.experts.#.gate.", "model.layers.#.mlp.experts.#.gate_proj."},
      {"layers.#.experts.#.up.", "model.layers.#.mlp.experts.#.up_proj."},
      {"layers.#.experts.#.down.", "model.layers.#.mlp.experts.#.down_proj."}};
  return names;
}

std::string LlamaName(absl::string_view parameter) { return MappedName(LlamaNames(), parameter); }

std::vector<TensorPlace> LlamaPlaces(const DecoderSpec&, const weights::ParameterSpec& parameter) {
  return {WholeTensor(LlamaName(parameter.name))};
}

std::optional<TensorPlace> StackedQkvPlace(const DecoderSpec& spec, absl::string_view parameter,
                                           absl::string_view tensor) {
  const int64_t q = spec.num_heads * spec.head_dim, kv = spec.num_kv_heads * spec.head_dim;
  const std::string kind = Kind(parameter), name = absl::StrCat(tensor, kind);
  const int64_t columns = kind == "weight" ? spec.model_dim : 0;
  if (IsPart(parameter, "attention.q.")) return RowsOf(name, q + 2 * kv, columns, 0, q);
  if (IsPart(parameter, "attention.k.")) return RowsOf(name, q + 2 * kv, columns, q, kv);
  if (IsPart(parameter, "attention.v.")) return RowsOf(name, q + 2 * kv, columns, q + kv, kv);
  return std::nullopt;
}

std::optional<TensorPlace> PerGroupQkvPlace(const DecoderSpec& spec, absl::string_view parameter,
                                            absl::string_view tensor) {
  const int64_t c = spec.head_dim, groups = spec.num_kv_heads, queries = spec.num_heads / groups * c;
  const std::string kind = Kind(parameter), name = absl::StrCat(tensor, kind);
  const int64_t columns = kind == "weight" ? spec.model_dim : 0, rows = queries + 2 * c;
  if (IsPart(parameter, "attention.q.")) return GroupedRowsOf(name, groups, rows, columns, 0, queries);
  if (IsPart(parameter, "attention.k.")) return GroupedRowsOf(name, groups, rows, columns, queries, c);
  if (IsPart(parameter, "attention.v.")) return GroupedRowsOf(name, groups, rows, columns, queries + c, c);
  return std::nullopt;
}

std::optional<TensorPlace> StackedGateUpPlace(const DecoderSpec& spec, absl::string_view parameter,
                                              absl::string_view tensor) {
  const bool gate = IsPart(parameter, "mlp.gate.");
  if (!gate && !IsPart(parameter, "mlp.up.")) return std::nullopt;
  return RowsOf(absl::StrCat(tensor, Kind(parameter)), 2 * spec.ffn_dim, spec.model_dim,
                gate ? 0 : spec.ffn_dim, spec.ffn_dim);
}

NameMap Joined(const NameMap& first, const NameMap& rest) {
  NameMap all = first;
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

std::vector<TensorPlace> WithFusedExperts(const DecoderSpec& spec, absl::string_view parameter,
                                          std::string name) {
  const int64_t expert = ExpertOf(parameter);
  if (expert < 0 || Kind(parameter) != "weight") return {WholeTensor(std::move(name))};
  const std::string prefix = absl::StrCat("model.layers.", LayerOf(parameter), ".mlp.experts.");
  const int64_t count = spec.experts.routing.experts, width = spec.experts.ffn_dim, d = spec.model_dim;
  if (IsPart(parameter, "down.")) {
    return {WholeTensor(std::move(name)),
            {prefix + "down_proj", {count, d, width}, expert * d * width, {d, width}, {width, 1}}};
  }
  const int64_t row = (2 * expert + (IsPart(parameter, "up.") ? 1 : 0)) * width;
  return {WholeTensor(std::move(name)),
          {prefix + "gate_up_proj", {count, 2 * width, d}, row * d, {width, d}, {d, 1}}};
}

std::vector<TensorPlace> FusableLlamaPlaces(const DecoderSpec& spec,
                                            const weights::ParameterSpec& parameter) {
  return WithFusedExperts(spec, parameter.name, LlamaName(parameter.name));
}

bool IsPart(absl::string_view parameter, absl::string_view part) {
  const size_t dot = parameter.rfind('.');
  return dot != absl::string_view::npos && absl::EndsWith(parameter.substr(0, dot + 1), absl::StrCat(".", part));
}

std::string Kind(absl::string_view parameter) {
  return std::string(parameter.substr(parameter.rfind('.') + 1));
}

namespace {

int64_t NumberBehind(absl::string_view parameter, absl::string_view word) {
  const std::vector<absl::string_view> parts = absl::StrSplit(parameter, '.');
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    int64_t number = -1;
    if (parts[i] == word && absl::SimpleAtoi(parts[i + 1], &number)) return number;
  }
  return -1;
}

}  // namespace

int64_t LayerOf(absl::string_view parameter) { return NumberBehind(parameter, "layers"); }
int64_t ExpertOf(absl::string_view parameter) { return NumberBehind(parameter, "experts"); }

}  // namespace rein::models
