#include "common/models/decoder_parameters.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace rein::models {

using nn::NormWeights;
using nn::Weight;
using weights::ParameterSpec;

namespace {

// Collects specs. Partition: rows or columns over tensor parallelism, experts over expert parallelism.
class SpecList {
 public:
  explicit SpecList(const DecoderSpec& spec) : s_(spec) {}

  void Matrix(std::string name, int64_t rows, int64_t columns, int tp_dim, bool follows = false) {
    specs.push_back({std::move(name), {rows, columns}, {tp_dim, -1, layer}, true, follows});
  }
  void Vector(std::string name, int64_t size, int tp_dim, bool follows = false) {
    specs.push_back({std::move(name), {size}, {tp_dim, -1, layer}, false, follows});
  }
  void Norm(const std::string& name) {
    if (!s_.norm_weights) return;
    Vector(name + ".weight", s_.model_dim, -1);
    if (s_.norm_bias) Vector(name + ".bias", s_.model_dim, -1);
  }
  void FeedForward(const std::string& at, int64_t width, bool bias) {
    const int64_t d = s_.model_dim;
    if (s_.gated) Matrix(at + "gate.weight", width, d, 0);  // gate and up are read as one matrix
    Matrix(at + "up.weight", width, d, 0, s_.gated);
    if (bias && s_.gated) Vector(at + "gate.bias", width, 0);
    if (bias) Vector(at + "up.bias", width, 0, s_.gated);
    Matrix(at + "down.weight", d, width, 1);
    if (bias) Vector(at + "down.bias", d, -1);
  }
  void Attention(const std::string& at);
  void Latent(const std::string& at);
  void Delta(const std::string& at);
  void Experts(const std::string& at);

  int layer = -1;
  std::vector<ParameterSpec> specs;

 private:
  const DecoderSpec& s_;
};

void SpecList::Attention(const std::string& at) {
  const int64_t d = s_.model_dim, q = s_.num_heads * s_.head_dim, kv = s_.num_kv_heads * s_.head_dim;
  Matrix(at + "q.weight", q, d, 0);  // q, k and v are read as one matrix
  Matrix(at + "k.weight", kv, d, 0, true);
  Matrix(at + "v.weight", kv, d, 0, true);
  if (s_.qkv_bias) {
    Vector(at + "q.bias", q, 0);
    Vector(at + "k.bias", kv, 0, true);
    Vector(at + "v.bias", kv, 0, true);
  }
  if (s_.qk_norm != QkNorm::kNone) {
    const bool whole = s_.qk_norm == QkNorm::kWhole;
    Vector(at + "q_norm.weight", whole ? q : s_.head_dim, -1);
    Vector(at + "k_norm.weight", whole ? kv : s_.head_dim, -1);
  }
  if (s_.sinks) Vector(at + "sinks", s_.num_heads, 0);
  if (s_.output_gate) Matrix(at + "gate.weight", q, d, 0);
  if (s_.output_gate && s_.qkv_bias) Vector(at + "gate.bias", q, 0);
  Matrix(at + "output.weight", d, q, 1);
  if (s_.output_bias) Vector(at + "output.bias", d, -1);
}

void SpecList::Latent(const std::string& at) {
  const LatentSpec& l = s_.latent;
  const int64_t d = s_.model_dim, q = s_.num_heads * (l.plain_dim + l.rotary_dim);
  if (l.query_dim > 0) {
    Matrix(at + "q_down.weight", l.query_dim, d, -1);
    Vector(at + "q_down_norm.weight", l.query_dim, -1);
  }
  Matrix(at + "q.weight", q, l.query_dim > 0 ? l.query_dim : d, 0);
  Matrix(at + "kv_down.weight", l.latent_dim + l.rotary_dim, d, -1);
  Vector(at + "latent_norm.weight", l.latent_dim, -1);
  Matrix(at + "kv_up.weight", s_.num_heads * (l.plain_dim + l.value_dim), l.latent_dim, 0);
  Matrix(at + "output.weight", d, s_.num_heads * l.value_dim, 1);
}

void SpecList::Delta(const std::string& at) {
  const nn::DeltaShape& n = s_.delta;
  const int64_t d = s_.model_dim, keys = n.key_heads * n.key_dim, values = n.value_heads * n.value_dim;
  Matrix(at + "q.weight", keys, d, 0);  // q, k, v and z are read as one matrix, and b and a
  Matrix(at + "k.weight", keys, d, 0, true);
  Matrix(at + "v.weight", values, d, 0, true);
  Matrix(at + "z.weight", values, d, 0, true);
  Matrix(at + "b.weight", n.value_heads, d, 0);
  Matrix(at + "a.weight", n.value_heads, d, 0, true);
  Matrix(at + "conv.weight", n.mixed_dim(), n.taps, -1);
  Vector(at + "decay", n.value_heads, 0);
  Vector(at + "dt_bias", n.value_heads, 0);
  Vector(at + "norm.weight", n.value_dim, -1);
  Matrix(at + "output.weight", d, values, 1);
}

// The experts of a layer stand one behind the other, so that they can be read as [E, 2I, D] and [E, D, I].
void SpecList::Experts(const std::string& at) {
  const ExpertSpec& e = s_.experts;
  const int64_t d = s_.model_dim, count = e.routing.experts, width = e.ffn_dim;
  Matrix(at + "router.weight", count, d, -1);
  if (e.router_bias) Vector(at + "router.bias", count, -1);
  if (e.correction) Vector(at + "router.correction", count, -1);
  auto name = [&](int64_t expert, const char* part) {
    return absl::StrCat(at, "experts.", expert, ".", part);
  };
  for (int64_t i = 0; i < count; ++i) {
    Matrix(name(i, "gate.weight"), width, d, -1, i > 0);
    Matrix(name(i, "up.weight"), width, d, -1, true);
  }
  for (int64_t i = 0; i < count; ++i) Matrix(name(i, "down.weight"), d, width, -1, i > 0);
  for (int64_t i = 0; e.bias && i < count; ++i) {
    Vector(name(i, "gate.bias"), width, -1, i > 0);
    Vector(name(i, "up.bias"), width, -1, true);
  }
  for (int64_t i = 0; e.bias && i < count; ++i) Vector(name(i, "down.bias"), d, -1, i > 0);
  if (e.shared_ffn_dim > 0) FeedForward(at + "shared.", e.shared_ffn_dim, false);
  if (e.shared_gate) Matrix(at + "shared_gate.weight", 1, d, -1);
}

// Whether a matrix beneath low-rank updates is held as the spec's quantisation says.
bool IsQuantised(const ParameterSpec& spec) {
  if (spec.shape.size() != 2 || !absl::EndsWith(spec.name, ".weight")) return false;
  for (absl::string_view name : {"embedding.weight", "position_embedding.weight", "head.weight", "score.weight"}) {
    if (spec.name == name) return false;
  }
  for (absl::string_view end : {".router.weight", ".shared_gate.weight", ".conv.weight"}) {  // small, and sensitive
    if (absl::EndsWith(spec.name, end)) return false;
  }
  return true;
}

// Cuts views of consecutive parameters out of the arenas; what the registry does not have stays undefined.
class ArenaViews {
 public:
  ArenaViews(const DecoderSpec& spec, const weights::Registry& registry, const ArenaParts& compute,
             const at::Tensor& grad)
      : spec_(spec), registry_(registry), compute_(compute), grad_(grad) {}

  // The named neighbours as one weight, stacked along their first dimension.
  Weight Stacked(const std::vector<std::string>& names) const {
    std::vector<int64_t> shape;
    std::vector<nn::LowRankUpdate> updates;
    const weights::Parameter* first = nullptr;
    int64_t elements = 0, scales = 0;
    for (const std::string& name : names) {
      const weights::Parameter* p = registry_.Find(name);
      if (p == nullptr) continue;
      if (first == nullptr) {
        first = p;
        shape = p->local_shape;
        shape[0] = 0;
      }
      scales += weights::ScaleCount(registry_.quantisation(), p->local_shape[0], p->elements);
      const std::string matrix(absl::StripSuffix(name, ".weight"));
      if (auto lora = spec_.lora.find(matrix); lora != spec_.lora.end()) {
        updates.push_back({shape[0], p->local_shape[0], One(matrix + kLoraDown), One(matrix + kLoraUp), lora->second.scale});
      }
      shape[0] += p->local_shape[0];
      elements += p->elements;
    }
    if (first == nullptr) return {};
    if (const weights::Quantisation format = first->spec.quantisation; format != weights::Quantisation::kNone) {
      nn::QuantisedMatrix all = compute_.MatrixOf(registry_, *first);
      all.code = compute_.quantised.code.narrow(0, weights::CodeBytes(format, first->offset), weights::CodeBytes(format, elements));
      all.scale = compute_.quantised.scale.narrow(0, first->scale, scales);
      all.shape = shape;
      return {{}, {}, std::move(updates), std::make_shared<nn::QuantisedMatrix>(std::move(all))};
    }
    const bool trained = registry_.InTrainedPart(*first);
    const int64_t begin = first->offset - (trained ? registry_.trained_begin() : 0);
    auto view = [&](const at::Tensor& part) {
      return part.defined() ? part.narrow(0, begin, elements).view(shape) : at::Tensor();
    };
    return {view(trained ? compute_.trained : compute_.frozen), trained ? view(grad_) : at::Tensor(), std::move(updates)};
  }
  Weight One(const std::string& name) const { return Stacked({name}); }
  NormWeights Norm(const std::string& name) const {
    return {One(name + ".weight"), One(name + ".bias")};
  }
  FeedForwardWeights FeedForward(const std::string& at) const {
    return {Stacked({at + "gate.weight", at + "up.weight"}), Stacked({at + "gate.bias", at + "up.bias"}),
            One(at + "down.weight"), One(at + "down.bias")};
  }
  // `parts` of all experts, as [experts, ...].
  Weight Experts(const std::string& at, int64_t experts, std::vector<const char*> parts) const {
    std::vector<std::string> names;
    for (int64_t i = 0; i < experts; ++i) {
      for (const char* part : parts) names.push_back(absl::StrCat(at, "experts.", i, ".", part));
    }
    Weight all = Stacked(names);
    if (!all.defined()) return all;
    auto split = [&](const at::Tensor& x) {
      return x.defined() ? x.unflatten(0, {experts, -1}) : x;
    };
    if (all.quantised != nullptr) {
      auto split_shape = std::make_shared<nn::QuantisedMatrix>(*all.quantised);
      split_shape->shape = {experts, all.size(0) / experts, all.size(1)};
      all.quantised = std::move(split_shape);
    }
    return {split(all.value), split(all.grad), std::move(all.updates), all.quantised};
  }

 private:
  const DecoderSpec& spec_;
  const weights::Registry& registry_;
  ArenaParts compute_;
  at::Tensor grad_;
};

LayerWeights CutLayer(const ArenaViews& views, const std::string& at, int64_t experts) {
  LayerWeights w;
  w.attention_norm = views.Norm(at + "attention_norm");
  w.attention_post_norm = views.Norm(at + "attention_post_norm");
  w.mlp_norm = views.Norm(at + "mlp_norm");
  w.mlp_post_norm = views.Norm(at + "mlp_post_norm");
  const std::string a = at + "attention.";
  w.qkv = views.Stacked({a + "q.weight", a + "k.weight", a + "v.weight"});
  w.qkv_bias = views.Stacked({a + "q.bias", a + "k.bias", a + "v.bias"});
  w.q_norm = views.One(a + "q_norm.weight");
  w.k_norm = views.One(a + "k_norm.weight");
  w.sinks = views.One(a + "sinks");
  w.latent = {views.One(a + "q_down.weight"),  views.One(a + "q_down_norm.weight"),
              views.One(a + "q.weight"),       views.One(a + "kv_down.weight"),
              views.One(a + "latent_norm.weight"), views.One(a + "kv_up.weight")};
  w.gate = views.One(a + "gate.weight");
  w.gate_bias = views.One(a + "gate.bias");
  const std::string d = at + "delta.";
  w.delta = {views.Stacked({d + "q.weight", d + "k.weight", d + "v.weight", d + "z.weight"}),
             views.Stacked({d + "b.weight", d + "a.weight"}),
             views.One(d + "conv.weight"),
             views.One(d + "decay"),
             views.One(d + "dt_bias"),
             views.One(d + "norm.weight")};
  w.output = views.One((w.delta.qkvz.defined() ? d : a) + "output.weight");
  w.output_bias = views.One(a + "output.bias");
  w.mlp = views.FeedForward(at + "mlp.");
  w.shared = views.FeedForward(at + "shared.");
  w.shared_gate = views.One(at + "shared_gate.weight");
  w.experts = {views.One(at + "router.weight"),
               views.One(at + "router.bias"),
               views.One(at + "router.correction"),
               views.Experts(at, experts, {"gate.weight", "up.weight"}),
               views.Experts(at, experts, {"gate.bias", "up.bias"}),
               views.Experts(at, experts, {"down.weight"}),
               views.Experts(at, experts, {"down.bias"})};
  return w;
}

}  // namespace

double DecoderSpec::attention_scale() const {
  if (score_scale > 0) return score_scale;
  const int64_t width = latent.latent_dim > 0 ? latent.plain_dim + latent.rotary_dim : head_dim;
  return 1 / std::sqrt(static_cast<double>(width));
}

std::vector<ParameterSpec> DecoderParameters(const DecoderSpec& s) {
  SpecList list(s);
  list.Matrix("embedding.weight", s.vocab_size, s.state_dim(), 0);
  if (s.embedding_dim > 0) list.Matrix("project_in.weight", s.model_dim, s.embedding_dim, -1);
  if (s.position_rows > 0) list.Matrix("position_embedding.weight", s.position_rows, s.model_dim, -1);
  if (s.embedding_norm) list.Norm("embedding_norm");
  for (int64_t n = 0; n < s.num_layers + s.mtp_layers; ++n) {
    const std::string at = absl::StrCat("layers.", n, ".");
    list.layer = static_cast<int>(n);
    if (n >= s.num_layers) {
      const std::string mtp = absl::StrCat("mtp.", n - s.num_layers, ".");
      list.Norm(mtp + "embedding_norm");
      list.Norm(mtp + "hidden_norm");
      list.Matrix(mtp + "projection.weight", s.model_dim, 2 * s.model_dim, -1);
      list.Norm(mtp + "norm");
    }
    if (s.block.pre_norm || s.block.sum_norm) list.Norm(at + "attention_norm");
    if (s.layer(n).recurrent) {
      list.Delta(at + "delta.");
    } else if (s.latent.latent_dim > 0) {
      list.Latent(at + "attention.");
    } else {
      list.Attention(at + "attention.");
    }
    if (s.block.post_norm) list.Norm(at + "attention_post_norm");
    const bool second = s.block.pre_norm && (!s.block.parallel || s.block.own_mlp_norm);
    if (second || s.block.sum_norm) list.Norm(at + "mlp_norm");
    if (s.layer(n).sparse) {
      list.Experts(at);
    } else {
      list.FeedForward(at + "mlp.", s.ffn_dim, s.mlp_bias);
    }
    if (s.block.post_norm) list.Norm(at + "mlp_post_norm");
  }
  list.layer = -1;
  if (!s.block.sum_norm) list.Norm("norm");
  if (s.embedding_dim > 0) list.Matrix("project_out.weight", s.embedding_dim, s.model_dim, -1);
  if (s.scalar_head) {
    list.Matrix("score.weight", 1, s.state_dim(), -1);
  } else if (!s.tied_head) {
    list.Matrix("head.weight", s.vocab_size, s.state_dim(), 0);
  }
  for (size_t i = 0, count = s.lora.empty() ? 0 : list.specs.size(); i < count; ++i) {
    const std::string matrix(absl::StripSuffix(list.specs[i].name, ".weight"));
    auto lora = s.lora.find(matrix);
    if (lora == s.lora.end()) continue;
    const int64_t rows = list.specs[i].shape[0], columns = list.specs[i].shape[1];
    list.layer = list.specs[i].partition.layer;
    list.Matrix(matrix + kLoraDown, lora->second.rank, columns, -1);
    list.Matrix(matrix + kLoraUp, rows, lora->second.rank, -1);
  }
  for (ParameterSpec& spec : list.specs) {
    const bool beside = IsLora(spec.name) || spec.name == "score.weight" || s.saved.count(spec.name) > 0;
    const bool base = !s.lora.empty() && !beside;
    spec.trained = !base && s.frozen.count(spec.name) == 0;
    if (base && IsQuantised(spec)) spec.quantisation = s.quantisation;
  }
  return std::move(list.specs);
}

bool IsLora(absl::string_view parameter) {
  return absl::EndsWith(parameter, kLoraDown) || absl::EndsWith(parameter, kLoraUp);
}

absl::StatusOr<DecoderWeights> CutWeights(const DecoderSpec& spec, const weights::Registry& registry,
                                          const ArenaParts& compute, const at::Tensor& grad) {
  std::vector<std::string> missing;
  for (const ParameterSpec& parameter : DecoderParameters(spec)) {
    if (registry.Find(parameter.name) == nullptr) missing.push_back(parameter.name);
  }
  if (!missing.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("decoder: the registry lacks ", absl::StrJoin(missing, ", ")));
  }
  ArenaViews views(spec, registry, compute, grad);
  DecoderWeights w;
  w.embedding = views.One("embedding.weight");
  w.positions = views.One("position_embedding.weight");
  w.project_in = views.One("project_in.weight");
  w.project_out = views.One("project_out.weight");
  w.embedding_norm = views.Norm("embedding_norm");
  w.norm = views.Norm("norm");
  w.head = spec.scalar_head ? views.One("score.weight")
           : spec.tied_head ? w.embedding
                            : views.One("head.weight");
  for (int64_t n = 0; n < spec.num_layers + spec.mtp_layers; ++n) {
    if (n >= spec.num_layers) {
      const std::string mtp = absl::StrCat("mtp.", n - spec.num_layers, ".");
      w.mtp.push_back({views.Norm(mtp + "embedding_norm"), views.Norm(mtp + "hidden_norm"), views.Norm(mtp + "norm"),
                       views.One(mtp + "projection.weight")});
    }
    const int64_t experts = spec.layer(n).sparse ? spec.experts.routing.experts : 0;
    w.layers.push_back(CutLayer(views, absl::StrCat("layers.", n, "."), experts));
  }
  if (spec.block.sum_norm && !w.layers.empty()) w.norm = w.layers.back().mlp_norm;
  return w;
}

}  // namespace rein::models
