#include "common/nn/delta_net.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "common/nn/functions.h"
#include "common/nn/leaf.h"
#include "common/nn/norm.h"

namespace rein::nn {
namespace {

constexpr int64_t kChunk = 64;  // tokens that are solved together

// What enters the recurrence, fp32: [.., V, L, dims] and [.., V, L].
struct Steps {
  at::Tensor q, k, v, beta, log_decay;
};

struct Result {
  at::Tensor out, state;  // [R, V, 1, W], [R, V, C, W]
};

at::Tensor UnitLength(const at::Tensor& x) {
  return x * (x.square().sum(-1, /*keepdim=*/true) + 1e-6).rsqrt();
}

// All tokens of one sequence, from a state of zeros: [1, V, L, ..] -> [L, V, W]. The corrections that a token writes depend on
// those before it through a triangular system, which is solved for all chunks at once; what is left from chunk to chunk is
// next = fixed state + added.
at::Tensor AdvanceAll(const Steps& s) {
  const int64_t length = s.q.size(2), chunk = std::min(kChunk, length), chunks = (length + chunk - 1) / chunk;
  auto cut = [&](const at::Tensor& x) {  // [V, N, chunk, ..]: what pads the last chunk writes nothing
    std::vector<int64_t> padding(static_cast<size_t>(2 * (x.dim() - 2)), 0);
    padding.back() = chunks * chunk - length;
    return at::constant_pad_nd(x, padding).squeeze(0).unflatten(1, {chunks, chunk});
  };
  at::Tensor q = cut(s.q), k = cut(s.k), v = cut(s.v), beta = cut(s.beta).unsqueeze(-1);
  at::Tensor decayed = cut(s.log_decay).cumsum(-1);  // since the chunk began
  at::Tensor later = at::ones({chunk, chunk}, q.options().dtype(at::kBool).requires_grad(false)).triu(1);
  at::Tensor pair = (decayed.unsqueeze(-1) - decayed.unsqueeze(-2)).masked_fill(later, -INFINITY).exp();
  at::Tensor key_t = k.transpose(-1, -2), k_beta = k * beta, grown = decayed.exp().unsqueeze(-1);
  at::Tensor solved = at::linalg_solve_triangular(k_beta.matmul(key_t) * pair, at::cat({v * beta, k_beta * grown}, -1),
                                                  /*upper=*/false, /*left=*/true, /*unitriangular=*/true);
  at::Tensor written_of_zeros = solved.narrow(-1, 0, v.size(-1)), of_state = solved.narrow(-1, v.size(-1), k.size(-1));
  at::Tensor last = decayed.narrow(-1, chunk - 1, 1);
  at::Tensor to_end = (k * (last - decayed).exp().unsqueeze(-1)).transpose(-1, -2);
  at::Tensor one = at::eye(k.size(-1), q.options().requires_grad(false));
  at::Tensor fixed = one * last.exp().unsqueeze(-1) - to_end.matmul(of_state), added = to_end.matmul(written_of_zeros);
  const std::vector<at::Tensor> fixed_N = fixed.unbind(1), added_N = added.unbind(1);
  std::vector<at::Tensor> states = {at::zeros_like(added_N[0])};
  for (int64_t n = 0; n + 1 < chunks; ++n) states.push_back(at::baddbmm(added_N[n], fixed_N[n], states.back()));
  at::Tensor state = at::stack(states, 1);  // before each chunk, [V, N, C, W]
  at::Tensor written = written_of_zeros - of_state.matmul(state);
  at::Tensor out = (q * grown).matmul(state) + (q.matmul(key_t) * pair).matmul(written);
  return out.flatten(1, 2).narrow(1, 0, length).transpose(0, 1);
}

// One token of each row [R, V, ..].
Result AdvanceOne(const Steps& s, const at::Tensor& state) {
  at::Tensor kept = state * s.log_decay.exp().unsqueeze(-1);           // log_decay [R, V, 1]
  at::Tensor key = s.k.squeeze(-2).unsqueeze(-1);                      // [R, V, C, 1]
  at::Tensor correction = (s.v.squeeze(-2) - (kept * key).sum(-2)) * s.beta;  // [R, V, W]
  at::Tensor next = kept + key * correction.unsqueeze(-2);
  return {(next * s.q.squeeze(-2).unsqueeze(-1)).sum(-2).unsqueeze(-2), next};
}

// From what the convolution gave, [R, L, mixed_dim] after SiLU, and ba [R, L, 2 V].
Steps MakeSteps(const at::Tensor& mixed, const at::Tensor& ba, const DeltaShape& s,
                const DeltaWeights& w) {
  const int64_t keys = s.key_heads * s.key_dim, repeat = s.value_heads / s.key_heads;
  auto heads = [&](int64_t begin, int64_t count, int64_t dim) {
    return mixed.narrow(2, begin, count * dim).unflatten(2, {count, dim}).transpose(1, 2);
  };
  at::Tensor q = UnitLength(heads(0, s.key_heads, s.key_dim).repeat_interleave(repeat, 1));
  at::Tensor k = UnitLength(heads(keys, s.key_heads, s.key_dim).repeat_interleave(repeat, 1));
  at::Tensor wide = ba.to(at::kFloat).transpose(1, 2);  // [R, 2 V, L]
  at::Tensor rate = Leaf(w.decay_V, at::kFloat).exp().unsqueeze(-1);
  at::Tensor step = at::softplus(wide.narrow(1, s.value_heads, s.value_heads) +
                                 Leaf(w.dt_bias_V, at::kFloat).unsqueeze(-1));
  return {q / std::sqrt(static_cast<double>(s.key_dim)), k, heads(2 * keys, s.value_heads, s.value_dim),
          at::sigmoid(wide.narrow(1, 0, s.value_heads)), -rate * step};
}

// window [R, J - 1 + L, mixed_dim] fp32 -> SiLU of the convolution, [R, L, mixed_dim].
at::Tensor Convolved(const at::Tensor& window, const at::Tensor& taps, int64_t length) {
  at::Tensor sum;
  for (int64_t j = 0; j < taps.size(1); ++j) {
    at::Tensor term = window.narrow(1, j, length) * taps.select(1, j);
    sum = sum.defined() ? sum + term : term;
  }
  return at::silu(sum);
}

// One sequence from its beginning: [L, mixed_dim] and [L, 2 V] -> [L, V, W].
at::Tensor RunSequence(const at::Tensor& mixed_LM, const at::Tensor& ba_L2V, const at::Tensor& taps,
                       const DeltaShape& s, const DeltaWeights& w) {
  const int64_t length = mixed_LM.size(0);
  at::Tensor window = at::constant_pad_nd(mixed_LM, {0, 0, s.taps - 1, 0}).unsqueeze(0);
  return AdvanceAll(MakeSteps(Convolved(window, taps, length), ba_L2V.unsqueeze(0), s, w));
}

// The next token of `rows` sequences, given as their place among the packed tokens and their row of pages_BP.
at::Tensor RunPagedStep(const at::Tensor& mixed_RM, const at::Tensor& ba_R2V, const at::Tensor& taps,
                        const at::Tensor& position_R, const at::Tensor& pages_RP, const DeltaShape& s,
                        const DeltaWeights& w, KvPages& layer, int64_t page_tokens) {
  auto page_at = [&](const at::Tensor& position) {
    return pages_RP.gather(1, position.div(page_tokens, "floor").unsqueeze(1)).squeeze(1).to(at::kLong);
  };
  at::Tensor before = page_at((position_R - 1).clamp_min(0)), now = page_at(position_R);
  at::Tensor fresh = (position_R == 0).view({-1, 1, 1});
  at::Tensor inputs = layer.value.index_select(0, before).masked_fill(fresh, 0);  // [R, M, J - 1]
  at::Tensor state = layer.key.index_select(0, before).masked_fill(fresh.unsqueeze(-1), 0);
  at::Tensor window = at::cat({inputs.transpose(1, 2), mixed_RM.unsqueeze(1)}, 1);
  Result r = AdvanceOne(MakeSteps(Convolved(window, taps, 1), ba_R2V.unsqueeze(1), s, w), state);
  layer.key.index_copy_(0, now, r.state);
  layer.value.index_copy_(0, now, window.narrow(1, 1, s.taps - 1).transpose(1, 2));
  return r.out.squeeze(2);  // [R, V, W]
}

at::Tensor RunPages(const at::Tensor& mixed_TM, const at::Tensor& ba_T2V, const at::Tensor& taps,
                    const DeltaShape& s, const DeltaWeights& w, const SequenceView& view, int layer) {
  const PageMap& map = *view.pages;
  KvPages& pages = (*map.layers)[layer];
  at::Tensor pages_BP = map.pages_BP.to(at::kLong);
  if (!mixed_TM.is_cpu() && view.longest == 1 && mixed_TM.size(0) == view.num_sequences()) {
    return RunPagedStep(mixed_TM, ba_T2V, taps, view.position_T, pages_BP, s, w, pages, map.page_tokens);
  }
  // The j-th token of all sequences at once; on a CPU each alone, because LibTorch's operations there give an
  // element other bits at other places of a tensor.
  at::Tensor out = at::empty({mixed_TM.size(0), s.value_heads, s.value_dim}, mixed_TM.options());
  auto step = [&](const std::vector<int64_t>& token, const std::vector<int64_t>& row) {
    at::Tensor at_R = at::tensor(token, at::kLong).to(mixed_TM.device());
    at::Tensor row_R = at::tensor(row, at::kLong).to(mixed_TM.device());
    out.index_copy_(0, at_R,
                    RunPagedStep(mixed_TM.index_select(0, at_R), ba_T2V.index_select(0, at_R), taps,
                                 view.position_T.index_select(0, at_R), pages_BP.index_select(0, row_R), s,
                                 w, pages, map.page_tokens));
  };
  for (int64_t j = 0; j < view.longest; ++j) {
    std::vector<int64_t> token, row;
    for (int64_t b = 0; b < view.num_sequences(); ++b) {
      if (view.offsets[b] + j >= view.offsets[b + 1]) continue;
      token.push_back(view.offsets[b] + j);
      row.push_back(b);
    }
    if (!mixed_TM.is_cpu()) {
      step(token, row);
      continue;
    }
    for (size_t i = 0; i < token.size(); ++i) step({token[i]}, {row[i]});
  }
  return out;
}

}  // namespace

at::Tensor DeltaNet(const at::Tensor& x_TD, const DeltaShape& s, const DeltaWeights& w, double eps,
                    const SequenceView& view, int layer) {
  at::Tensor qkvz = Projection(x_TD, w.qkvz, {}), ba = Projection(x_TD, w.ba, {});
  at::Tensor mixed = qkvz.narrow(1, 0, s.mixed_dim()).to(at::kFloat);
  at::Tensor z = qkvz.narrow(1, s.mixed_dim(), s.value_heads * s.value_dim);
  at::Tensor taps = Leaf(w.conv, at::kFloat), out;
  if (view.pages != nullptr) {
    out = RunPages(mixed, ba, taps, s, w, view, layer);
  } else {
    std::vector<at::Tensor> rows;
    for (int64_t b = 0; b < view.num_sequences(); ++b) {
      const int64_t begin = view.offsets[b], length = view.offsets[b + 1] - begin;
      if (length > 0) rows.push_back(RunSequence(mixed.narrow(0, begin, length), ba.narrow(0, begin, length), taps, s, w));
    }
    out = at::cat(rows, 0);
  }
  at::Tensor normed = RmsNorm(out.to(x_TD.scalar_type()).contiguous(), w.norm_W, eps);
  at::Tensor gate = at::silu(z.to(at::kFloat)).view(normed.sizes());
  return (normed.to(at::kFloat) * gate).to(x_TD.scalar_type()).flatten(1);
}

}  // namespace rein::nn
