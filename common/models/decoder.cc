#include "common/models/decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/models/kv_size.h"
#include "common/models/layer_watch.h"
#include "common/nn/activation.h"
#include "common/nn/delta_net.h"
#include "common/nn/norm.h"
#include "common/nn/candidate_logprobs.h"
#include "common/nn/scalar_head.h"
#include "common/status/status_macros.h"

namespace rein::models {
namespace {

// The slopes of ALiBi: 2^(-8h/n) for n heads, a power of two; for other numbers those of the power below, then
// every other one of the power above (arXiv 2108.12409).
at::Tensor AlibiSlopes(int64_t heads) {
  int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<double> slopes;
  for (int64_t h = 1; h <= power; ++h) slopes.push_back(std::exp2(-8.0 * static_cast<double>(h) / static_cast<double>(power)));
  for (int64_t h = 1; static_cast<int64_t>(slopes.size()) < heads; h += 2) {
    slopes.push_back(std::exp2(-4.0 * static_cast<double>(h) / static_cast<double>(power)));
  }
  return at::tensor(slopes, at::kDouble).to(at::kFloat);
}

at::Tensor Scaled(const at::Tensor& x, double factor) { return factor == 1 ? x : x * factor; }

}  // namespace

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(const DecoderSpec& spec,
                                                         const weights::Registry& registry,
                                                         const at::Tensor& compute,
                                                         const at::Tensor& grad) {
  if (compute.numel() != registry.arena_elements()) {
    return absl::InvalidArgumentError(absl::StrCat("decoder: the arena has ", compute.numel(),
                                                   " elements, the registry wants ",
                                                   registry.arena_elements()));
  }
  return Create(spec, registry, PartsOf(registry, compute), grad);
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(const DecoderSpec& spec,
                                                         const weights::Registry& registry,
                                                         const ArenaParts& parts,
                                                         const at::Tensor& grad) {
  auto fits = [](const at::Tensor& arena, int64_t wanted) { return arena.defined() ? arena.numel() == wanted : wanted == 0; };
  const int64_t trained = registry.trained_elements();
  const int64_t code_bytes = weights::CodeBytes(registry.quantisation(), registry.quantised_elements());
  if (!fits(parts.quantised.code, code_bytes) || !fits(parts.quantised.scale, registry.quantised_scales())) {
    return absl::InvalidArgumentError(absl::StrCat("decoder: quantised weights do not fit the registry, which wants ", code_bytes,
                                                   " bytes of codes and ", registry.quantised_scales(), " scales"));
  }
  if (!fits(parts.frozen, registry.trained_begin()) || !fits(parts.trained, trained) ||
      (grad.defined() && !fits(grad, trained))) {
    return absl::InvalidArgumentError(absl::StrCat("decoder: an arena does not fit the registry, which wants ",
                                                   registry.trained_begin(), " frozen elements and ", trained,
                                                   " trained ones"));
  }
  auto decoder = std::unique_ptr<Decoder>(new Decoder(spec));
  decoder->trained_ = grad.defined();
  REIN_ASSIGN_OR_RETURN(decoder->weights_, CutWeights(spec, registry, parts, grad));
  const at::Device device = decoder->device();
  decoder->head_rule_ = {spec.logit_multiplier, spec.logit_softcap, spec.normalised_head};
  const double scale = spec.attention_scale();
  at::Tensor slopes;
  if (spec.alibi != Alibi::kNone) slopes = AlibiSlopes(spec.num_heads).to(device);
  if (spec.alibi == Alibi::kScaled) slopes = slopes.to(at::kBFloat16).to(at::kFloat).mul_(scale);
  for (int64_t n = 0; n < spec.num_layers + spec.mtp_layers; ++n) {
    nn::AttentionRule rule(scale);
    rule.window = spec.layer(n).window;
    rule.softcap = spec.score_softcap;
    rule.alibi_H = slopes;
    rule.sinks_H = decoder->weights_.layers[n].sinks;
    decoder->rules_.push_back(std::move(rule));
  }
  const int64_t dims = spec.latent.latent_dim > 0 ? spec.latent.rotary_dim
                       : spec.rotary_dim > 0      ? spec.rotary_dim
                                                  : spec.head_dim;
  for (const RopeSpec& rope : spec.ropes) {
    RopeTable table = MakeRopeTable(rope, dims, spec.max_positions);
    decoder->tables_.push_back({table.cos.to(device), table.sin.to(device)});
  }
  return decoder;
}

struct Decoder::Pass {
  nn::SequenceView view;
  std::vector<nn::Rotary> rotaries;  // of each of spec().ropes
  std::shared_ptr<nn::RouterRecord> routers;
};

std::shared_ptr<Decoder::Pass> Decoder::NewPass(const nn::SequenceView& view,
                                                const std::shared_ptr<nn::RouterRecord>& routers) const {
  auto pass = std::make_shared<Pass>(Pass{view, {}, routers});
  for (const RopeTable& table : tables_) {
    pass->rotaries.push_back({table.cos.index_select(0, view.position_T),
                              table.sin.index_select(0, view.position_T), spec_.rope_interleaved});
  }
  return pass;
}

at::Tensor Decoder::Attended(int layer, const at::Tensor& x_TD, const Pass& pass) const {
  const LayerWeights& w = weights_.layers[layer];
  const nn::SequenceView& view = pass.view;
  const int rope = spec_.layer(layer).rope;
  const nn::Rotary rotary = rope < 0 ? nn::Rotary() : pass.rotaries[rope];
  at::Tensor attended;
  if (spec_.layer(layer).recurrent) {
    attended = nn::DeltaNet(x_TD, spec_.delta, w.delta, spec_.norm_epsilon, view, layer);
  } else if (spec_.latent.latent_dim > 0) {
    const LatentSpec& l = spec_.latent;
    const nn::LatentShape shape{spec_.num_heads, l.latent_dim, l.plain_dim, l.rotary_dim, l.value_dim};
    attended = nn::AttendLatent(x_TD, shape, w.latent, rotary, view, layer, rules_[layer]);
  } else {
    const nn::NormKind norm = spec_.norm == nn::NormKind::kLayer ? nn::NormKind::kRms : spec_.norm;
    const nn::HeadShape shape{spec_.num_heads, spec_.num_kv_heads, spec_.head_dim, norm,
                              spec_.qk_norm == QkNorm::kWhole, spec_.kv_fp8};
    auto [q, k, v] =
        nn::SplitQueryKeyValue(nn::Projection(x_TD, w.qkv, w.qkv_bias), shape, w.q_norm, w.k_norm,
                               spec_.norm_epsilon, rotary, view, layer);
    attended = nn::Attention(q, k, v, view, layer, rules_[layer]).flatten(1);
  }
  if (w.gate.defined()) attended = attended * at::sigmoid(nn::Projection(x_TD, w.gate, w.gate_bias));
  return nn::Projection(attended, w.output, w.output_bias);
}

at::Tensor Decoder::FeedForward(const at::Tensor& x_TD, const FeedForwardWeights& w) const {
  at::Tensor up = nn::Projection(x_TD, w.up, w.up_bias);
  at::Tensor inner = spec_.gated ? nn::Gated(up, spec_.gate) : nn::Activate(up, spec_.gate.activation);
  return nn::Projection(inner, w.down, w.down_bias);
}

at::Tensor Decoder::FedForward(int layer, const at::Tensor& x_TD, const Pass& pass) const {
  const LayerWeights& w = weights_.layers[layer];
  if (!spec_.layer(layer).sparse) return FeedForward(x_TD, w.mlp);
  nn::RouterPlace place{layer, spec_.num_layers, pass.routers, spec_.routers_before(layer)};
  if (const nn::PageMap* pages = pass.view.pages; pages != nullptr && (*pages->layers)[layer].choice.defined()) {
    place.kept_SK = (*pages->layers)[layer].choice.flatten(0, 1);
    place.slot_T = pages->slot_T;
  }
  at::Tensor out = nn::MixtureOfExperts(x_TD, w.experts, spec_.experts.routing, spec_.gate, place);
  if (!w.shared.up.defined()) return out;
  at::Tensor shared = FeedForward(x_TD, w.shared);
  if (!w.shared_gate.defined()) return out + shared;
  // The sigmoid as softmax over (x, 0), which LibTorch computes row by row: a CPU's bits do not depend on the others.
  at::Tensor gate = nn::Projection(x_TD, w.shared_gate, {});
  return out + shared * at::softmax(at::cat({gate, at::zeros_like(gate)}, 1), 1).narrow(1, 0, 1);
}

nn::Residual Decoder::Block(int layer, const nn::Residual& in, const Pass& pass) const {
  const LayerWeights& w = weights_.layers[layer];
  const BlockSpec& block = spec_.block;
  const double eps = spec_.norm_epsilon;
  auto sum_and_norm = [&](const nn::Residual& r, const nn::NormWeights& norm) -> nn::SumAndNorm {
    if (block.pre_norm) return nn::AddNorm(r.x_TD, r.delta_TD, spec_.norm, norm, eps);
    at::Tensor sum = r.delta_TD.defined() ? r.x_TD + r.delta_TD : r.x_TD;
    return {sum, sum};
  };
  if (block.sum_norm) {  // what comes in is the layer before's, and its last norm still to do
    const nn::NormWeights& before = layer > 0 ? weights_.layers[layer - 1].mlp_norm : w.mlp_norm;
    at::Tensor x = layer > 0 ? nn::AddNorm(in.x_TD, in.delta_TD, spec_.norm, before, eps).norm : in.x_TD;
    at::Tensor y = nn::AddNorm(x, Attended(layer, x, pass), spec_.norm, w.attention_norm, eps).norm;
    return {y, FedForward(layer, y, pass)};
  }
  auto finished = [&](const at::Tensor& delta, const nn::NormWeights& norm) {
    at::Tensor out = block.post_norm ? nn::Norm(delta, spec_.norm, norm, eps) : delta;
    return Scaled(out, block.residual_multiplier);
  };
  auto [x, normed] = sum_and_norm(in, w.attention_norm);
  at::Tensor attended = finished(Attended(layer, normed, pass), w.attention_post_norm);
  if (block.parallel) {
    at::Tensor mlp_in = block.own_mlp_norm ? nn::Norm(x, spec_.norm, w.mlp_norm, eps) : normed;
    return {x, attended + finished(FedForward(layer, mlp_in, pass), w.mlp_post_norm)};
  }
  auto [y, normed_again] = sum_and_norm({x, attended}, w.mlp_norm);
  return {y, finished(FedForward(layer, normed_again, pass), w.mlp_post_norm)};
}

at::Tensor Decoder::Embedded(const at::Tensor& token_T, const nn::SequenceView& view) const {
  at::Tensor x = nn::Embedding(token_T, weights_.embedding);
  if (spec_.embedding_multiplier != 1) {
    x = x * at::scalar_tensor(spec_.embedding_multiplier, x.options().requires_grad(false));
  }
  if (spec_.embedding_dim > 0) x = nn::Projection(x, weights_.project_in, {});
  if (spec_.position_rows > 0) {
    x = x + nn::Embedding(view.position_T + spec_.position_offset, weights_.positions);
  }
  if (spec_.embedding_norm) x = nn::Norm(x, spec_.norm, weights_.embedding_norm, spec_.norm_epsilon);
  return x;
}

at::Tensor Decoder::Hidden(const at::Tensor& token_T, const nn::SequenceView& view, bool recompute,
                           const std::shared_ptr<nn::RouterRecord>& routers,
                           const at::Tensor& noise_TD) const {
  const std::shared_ptr<Pass> pass = NewPass(view, routers);
  nn::Residual residual{Embedded(token_T, view), {}};
  // Frozen embeddings are no part of a graph, and what follows them would not be either.
  if (trained_ && at::GradMode::is_enabled() && !residual.x_TD.requires_grad()) residual.x_TD.requires_grad_(true);
  if (noise_TD.defined()) residual.x_TD = residual.x_TD + noise_TD.to(residual.x_TD.options().requires_grad(false));
  LayerWatch::Tell(residual.x_TD, {});
  for (int n = 0; n < spec_.num_layers; ++n) {
    auto block = [this, n, pass](const nn::Residual& in) { return Block(n, in, *pass); };
    residual = recompute ? nn::Recompute(block, residual) : block(residual);
    LayerWatch::Tell(residual.x_TD, residual.delta_TD);
  }
  if (routers != nullptr) routers->Close();
  at::Tensor normed = nn::AddNorm(residual.x_TD, residual.delta_TD, spec_.norm, weights_.norm, spec_.norm_epsilon).norm;
  if (spec_.embedding_dim > 0) normed = nn::Projection(normed, weights_.project_out, {});
  LayerWatch::Tell(normed, {});
  return normed;
}

at::Tensor Decoder::MtpHidden(int64_t depth, const at::Tensor& hidden_TD, const at::Tensor& next_T,
                              const nn::SequenceView& view, bool recompute) const {
  const MtpWeights& w = weights_.mtp[static_cast<size_t>(depth)];
  const std::shared_ptr<Pass> pass = NewPass(view, nullptr);
  at::Tensor next_TD = nn::Norm(Embedded(next_T, view), spec_.norm, w.embedding_norm, spec_.norm_epsilon);
  at::Tensor past_TD = nn::Norm(hidden_TD, spec_.norm, w.hidden_norm, spec_.norm_epsilon);
  const nn::Residual in{nn::Projection(at::cat({next_TD, past_TD}, 1), w.projection, {}), {}};
  const int layer = static_cast<int>(spec_.num_layers + depth);
  auto block = [this, layer, pass](const nn::Residual& r) { return Block(layer, r, *pass); };
  const nn::Residual out = recompute ? nn::Recompute(block, in) : block(in);
  return nn::AddNorm(out.x_TD, out.delta_TD, spec_.norm, w.norm, spec_.norm_epsilon).norm;
}

std::shared_ptr<nn::RouterRecord> Decoder::NewRouterRecord() const {
  if (spec_.experts.routing.experts == 0) return nullptr;
  auto record = std::make_shared<nn::RouterRecord>();
  record->balance = spec_.experts.balance;
  return record;
}

nn::TokenLogprobs Decoder::Logprobs(const at::Tensor& hidden_ND, const at::Tensor& target_N,
                                    double temperature) const {
  return nn::HeadLogprobs(hidden_ND, weights_.head, target_N, temperature, head_rule_);
}

at::Tensor Decoder::TargetLogits(const at::Tensor& hidden_ND, const at::Tensor& target_N,
                                 double temperature) const {
  at::Tensor row_ND = nn::Embedding(target_N, weights_.head).to(at::kFloat);
  at::Tensor logit_N = (hidden_ND.to(at::kFloat) * row_ND).sum(1) * head_rule_.multiplier;
  if (head_rule_.softcap > 0) {
    logit_N = at::tanh(logit_N / head_rule_.softcap) * head_rule_.softcap;
  }
  return logit_N / temperature;
}

at::Tensor Decoder::CandidateLogprobs(const at::Tensor& hidden_ND, const at::Tensor& candidate_NK,
                                      double temperature) const {
  return nn::CandidateLogprobs(hidden_ND, weights_.head, candidate_NK, temperature, head_rule_);
}

at::Tensor Decoder::Scores(const at::Tensor& hidden_ND) const {
  return nn::ScalarHead(hidden_ND, weights_.head);
}

at::Tensor Decoder::Logits(const at::Tensor& hidden_ND) const {
  return nn::HeadLogits(hidden_ND, weights_.head, head_rule_);
}

std::vector<nn::KvPages> Decoder::NewPages(int64_t pages, int64_t page_tokens, bool choices) const {
  std::vector<nn::KvPages> layers;
  const LatentSpec& latent = spec_.latent;
  const nn::DeltaShape& delta = spec_.delta;
  for (int n = 0; n < spec_.num_layers; ++n) {
    auto pool = [&](int64_t heads, int64_t dim) {
      return at::empty({pages, page_tokens, heads, dim}, weights_.embedding.value.options().dtype(kv_dtype()));
    };
    if (spec_.layer(n).recurrent) {
      at::TensorOptions fp32 = weights_.embedding.value.options().dtype(at::kFloat);
      layers.push_back({at::zeros({pages, delta.value_heads, delta.key_dim, delta.value_dim}, fp32),
                        at::zeros({pages, delta.mixed_dim(), delta.taps - 1}, fp32)});
    } else if (latent.latent_dim > 0) {
      layers.push_back({pool(1, latent.latent_dim + latent.rotary_dim), pool(1, 0)});
    } else {
      layers.push_back({pool(spec_.num_kv_heads, spec_.head_dim), pool(spec_.num_kv_heads, spec_.head_dim)});
    }
    if (!choices || !spec_.layer(n).sparse) continue;
    layers.back().choice = at::full({pages, page_tokens, spec_.experts.routing.chosen}, -1,
                                    weights_.embedding.value.options().dtype(at::kShort));
  }
  return layers;
}

int64_t Decoder::kv_bytes_per_page(int64_t page_tokens, bool choices) const {
  return KvBytesPerPage(spec_, page_tokens, static_cast<int64_t>(c10::elementSize(kv_dtype())), choices);
}

at::Device Decoder::device() const { return weights_.embedding.value.device(); }
at::ScalarType Decoder::dtype() const { return weights_.embedding.value.scalar_type(); }

at::ScalarType Decoder::kv_dtype() const {
  const bool kernels = std::all_of(rules_.begin(), rules_.end(), [&](const nn::AttentionRule& rule) {
    return nn::KernelsReadFp8(weights_.embedding.value, spec_.head_dim, rule);
  });
  return spec_.kv_fp8 && kernels ? at::kFloat8_e4m3fn : dtype();
}

}  // namespace rein::models
