#include "common/models/decoder.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/nn/attention.h"
#include "common/nn/scalar_head.h"
#include "common/status/status_macros.h"

namespace rein::models {

using nn::Weight;
using weights::ParameterSpec;
using weights::Partition;

struct Decoder::Layer {
  Weight attention_norm, mlp_norm;
  Weight qkv, qkv_bias, output, output_bias, q_norm, k_norm;
  Weight gate_up, gate_up_bias, down, down_bias;
};

std::vector<ParameterSpec> DecoderParameters(const DecoderSpec& s) {
  std::vector<ParameterSpec> specs;
  const int64_t d = s.model_dim, q = s.num_heads * s.head_dim, kv = s.num_kv_heads * s.head_dim;
  auto matrix = [&](std::string name, int64_t rows, int64_t columns, int tp_dim, int layer,
                    bool follows = false) {
    specs.push_back({std::move(name), {rows, columns}, {tp_dim, -1, layer}, true, follows});
  };
  auto vector = [&](std::string name, int64_t size, int tp_dim, int layer, bool follows = false) {
    specs.push_back({std::move(name), {size}, {tp_dim, -1, layer}, false, follows});
  };
  matrix("embedding.weight", s.vocab_size, d, 0, -1);
  for (int n = 0; n < s.num_layers; ++n) {
    const std::string at = absl::StrCat("layers.", n, ".");
    vector(at + "attention_norm.weight", d, -1, n);
    matrix(at + "attention.q.weight", q, d, 0, n);  // q, k and v are read as one matrix
    matrix(at + "attention.k.weight", kv, d, 0, n, true);
    matrix(at + "attention.v.weight", kv, d, 0, n, true);
    if (s.qkv_bias) {
      vector(at + "attention.q.bias", q, 0, n);
      vector(at + "attention.k.bias", kv, 0, n, true);
      vector(at + "attention.v.bias", kv, 0, n, true);
    }
    if (s.qk_norm) {
      vector(at + "attention.q_norm.weight", s.head_dim, -1, n);
      vector(at + "attention.k_norm.weight", s.head_dim, -1, n);
    }
    matrix(at + "attention.output.weight", d, q, 1, n);
    if (s.output_bias) vector(at + "attention.output.bias", d, -1, n);
    vector(at + "mlp_norm.weight", d, -1, n);
    matrix(at + "mlp.gate.weight", s.ffn_dim, d, 0, n);  // gate and up are read as one matrix
    matrix(at + "mlp.up.weight", s.ffn_dim, d, 0, n, true);
    if (s.mlp_bias) {
      vector(at + "mlp.gate.bias", s.ffn_dim, 0, n);
      vector(at + "mlp.up.bias", s.ffn_dim, 0, n, true);
    }
    matrix(at + "mlp.down.weight", d, s.ffn_dim, 1, n);
    if (s.mlp_bias) vector(at + "mlp.down.bias", d, -1, n);
  }
  vector("norm.weight", d, -1, -1);
  if (s.scalar_head) {
    matrix("score.weight", 1, d, -1, -1);
  } else if (!s.tied_head) {
    matrix("head.weight", s.vocab_size, d, 0, -1);
  }
  return specs;
}

namespace {

// Inverse frequencies [C/2], stretched as the spec says (`transformers` modeling_rope_utils).
std::vector<double> InverseFrequencies(const DecoderSpec& spec) {
  std::vector<double> frequencies;
  const RopeScaling& scaling = spec.rope_scaling;
  for (int64_t i = 0; i < spec.head_dim / 2; ++i) {
    double f = std::pow(spec.rope_theta, -2.0 * i / spec.head_dim);
    if (scaling.kind == RopeScaling::Kind::kLinear) f /= scaling.factor;
    if (scaling.kind == RopeScaling::Kind::kLlama3) {
      const double wavelength = 2 * std::numbers::pi / f;
      const double original = static_cast<double>(scaling.original_max_positions);
      if (wavelength > original / scaling.low_freq_factor) {
        f /= scaling.factor;
      } else if (wavelength >= original / scaling.high_freq_factor) {
        const double smooth = (original / wavelength - scaling.low_freq_factor) /
                              (scaling.high_freq_factor - scaling.low_freq_factor);
        f = (1 - smooth) * f / scaling.factor + smooth * f;
      }
    }
    frequencies.push_back(f);
  }
  return frequencies;
}

// Cuts views of consecutive parameters out of the arenas.
class ArenaViews {
 public:
  ArenaViews(const weights::Registry& registry, const at::Tensor& compute, const at::Tensor& grad)
      : registry_(registry), compute_(compute), grad_(grad) {}

  // The named neighbours as one weight, stacked along their first dimension.
  Weight Stacked(std::initializer_list<std::string> names) {
    std::vector<int64_t> shape;
    int64_t begin = 0, elements = 0;
    for (const std::string& name : names) {
      const weights::Parameter* p = registry_.Find(name);
      if (p == nullptr) {
        missing_.push_back(name);
        return {};
      }
      if (shape.empty()) {
        begin = p->offset;
        shape = p->local_shape;
      } else {
        shape[0] += p->local_shape[0];
      }
      elements += p->elements;
    }
    auto view = [&](const at::Tensor& arena) {
      return arena.defined() ? arena.narrow(0, begin, elements).view(shape) : at::Tensor();
    };
    return {view(compute_), view(grad_)};
  }
  Weight One(const std::string& name) { return Stacked({name}); }

  const std::vector<std::string>& missing() const { return missing_; }

 private:
  const weights::Registry& registry_;
  at::Tensor compute_, grad_;
  std::vector<std::string> missing_;
};

}  // namespace

Decoder::Decoder(const DecoderSpec& spec) : spec_(spec) {}
Decoder::~Decoder() = default;

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(const DecoderSpec& spec,
                                                         const weights::Registry& registry,
                                                         const at::Tensor& compute,
                                                         const at::Tensor& grad) {
  for (const at::Tensor& arena : {compute, grad}) {
    if (arena.defined() && arena.numel() != registry.arena_elements()) {
      return absl::InvalidArgumentError(absl::StrCat("decoder: an arena has ", arena.numel(),
                                                     " elements, the registry wants ",
                                                     registry.arena_elements()));
    }
  }
  auto decoder = std::unique_ptr<Decoder>(new Decoder(spec));
  ArenaViews views(registry, compute, grad);
  decoder->embedding_ = views.One("embedding.weight");
  decoder->norm_ = views.One("norm.weight");
  decoder->head_ = spec.scalar_head ? views.One("score.weight")
                   : spec.tied_head ? decoder->embedding_
                                    : views.One("head.weight");
  for (int n = 0; n < spec.num_layers; ++n) {
    const std::string at = absl::StrCat("layers.", n, ".");
    Layer layer;
    layer.attention_norm = views.One(at + "attention_norm.weight");
    layer.qkv = views.Stacked(
        {at + "attention.q.weight", at + "attention.k.weight", at + "attention.v.weight"});
    if (spec.qkv_bias) {
      layer.qkv_bias =
          views.Stacked({at + "attention.q.bias", at + "attention.k.bias", at + "attention.v.bias"});
    }
    if (spec.qk_norm) {
      layer.q_norm = views.One(at + "attention.q_norm.weight");
      layer.k_norm = views.One(at + "attention.k_norm.weight");
    }
    layer.output = views.One(at + "attention.output.weight");
    if (spec.output_bias) layer.output_bias = views.One(at + "attention.output.bias");
    layer.mlp_norm = views.One(at + "mlp_norm.weight");
    layer.gate_up = views.Stacked({at + "mlp.gate.weight", at + "mlp.up.weight"});
    layer.down = views.One(at + "mlp.down.weight");
    if (spec.mlp_bias) {
      layer.gate_up_bias = views.Stacked({at + "mlp.gate.bias", at + "mlp.up.bias"});
      layer.down_bias = views.One(at + "mlp.down.bias");
    }
    decoder->layers_.push_back(std::move(layer));
  }
  if (!views.missing().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("decoder: the registry lacks ", absl::StrJoin(views.missing(), ", ")));
  }
  at::Tensor frequency = at::tensor(InverseFrequencies(spec), at::kDouble).to(at::kFloat);
  at::Tensor angle = at::outer(at::arange(spec.max_positions, at::kFloat), frequency);
  decoder->cos_PC2_ = angle.cos().to(compute.device());
  decoder->sin_PC2_ = angle.sin().to(compute.device());
  return decoder;
}

nn::Residual Decoder::Block(int layer, const nn::Residual& in, const nn::SequenceView& view,
                            const nn::Rotary& rotary) const {
  const Layer& w = layers_[layer];
  const nn::HeadShape shape{spec_.num_heads, spec_.num_kv_heads, spec_.head_dim};
  const double eps = spec_.norm_epsilon, scale = 1 / std::sqrt(static_cast<double>(shape.head_dim));
  auto [x, normed] = nn::AddRmsNorm(in.x_TD, in.delta_TD, w.attention_norm, eps);
  auto [q, k, v] = nn::SplitQueryKeyValue(nn::Projection(normed, w.qkv, w.qkv_bias), shape, w.q_norm,
                                          w.k_norm, eps, rotary, view, layer);
  at::Tensor attended = nn::Attention(q, k, v, view, layer, scale).flatten(1);
  auto [y, normed_again] =
      nn::AddRmsNorm(x, nn::Projection(attended, w.output, w.output_bias), w.mlp_norm, eps);
  at::Tensor gated = nn::GatedSilu(nn::Projection(normed_again, w.gate_up, w.gate_up_bias));
  return {y, nn::Projection(gated, w.down, w.down_bias)};
}

at::Tensor Decoder::Hidden(const at::Tensor& token_T, const nn::SequenceView& view,
                           bool recompute) const {
  const nn::Rotary rotary{cos_PC2_.index_select(0, view.position_T),
                          sin_PC2_.index_select(0, view.position_T)};
  nn::Residual residual{nn::Embedding(token_T, embedding_), {}};
  for (int n = 0; n < spec_.num_layers; ++n) {
    auto block = [this, n, view, rotary](const nn::Residual& in) {
      return Block(n, in, view, rotary);
    };
    residual = recompute ? nn::Recompute(block, residual) : block(residual);
  }
  return nn::AddRmsNorm(residual.x_TD, residual.delta_TD, norm_, spec_.norm_epsilon).norm;
}

nn::TokenLogprobs Decoder::Logprobs(const at::Tensor& hidden_ND, const at::Tensor& target_N,
                                    double temperature) const {
  return nn::HeadLogprobs(hidden_ND, head_, target_N, temperature);
}

at::Tensor Decoder::Scores(const at::Tensor& hidden_ND) const {
  return nn::ScalarHead(hidden_ND, head_);
}

at::Tensor Decoder::Logits(const at::Tensor& hidden_ND) const {
  return nn::HeadLogits(hidden_ND, head_);
}

std::vector<nn::KvPages> Decoder::NewPages(int64_t pages, int64_t page_tokens) const {
  std::vector<nn::KvPages> layers;
  for (int n = 0; n < spec_.num_layers; ++n) {
    auto pool = [&] {
      return at::empty({pages, page_tokens, spec_.num_kv_heads, spec_.head_dim},
                       embedding_.value.options());
    };
    layers.push_back({pool(), pool()});
  }
  return layers;
}

at::Device Decoder::device() const { return embedding_.value.device(); }
at::ScalarType Decoder::dtype() const { return embedding_.value.scalar_type(); }

}  // namespace rein::models
