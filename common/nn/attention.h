// Causal grouped-query attention over packed sequences (arXiv 2305.13245).
//
//   o[t, h] = softmax_j(q[t, h] . k[j, h / (H/K)] * scale) v[j, h / (H/K)],  j <= t in t's sequence
//
// T packed tokens, H heads, K kv heads (divides H), C head dim. Softmax is fp32 inside.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/sequence_view.h"
#include "common/nn/weight.h"

namespace rein::nn {

// How scores become weights.
struct AttentionRule {
  AttentionRule(double scale = 1) : scale(scale) {}  // NOLINT: a scale is a rule

  double scale;
  int64_t window = 0;   // above 0: a query sees that many keys, itself included (arXiv 2310.06825)
  double softcap = 0;   // above 0: cap tanh(score / cap), before the mask (arXiv 2408.00118)
  at::Tensor alibi_H;   // fp32 slopes: slope (j - t) is added to scores (arXiv 2108.12409)
  Weight sinks_H;       // one more score for each head, of a key without a value (arXiv 2508.10925)

  bool plain() const {
    return window == 0 && softcap == 0 && !alibi_H.defined() && !sinks_H.defined();
  }
};

// q_THC [T, H, C], k_TKC and v_TKC [T, K, C] of one layer -> [T, H, C]. With view.pages all keys are read from
// the pages of `layer`, the new ones being written there first unless k is undefined (they are there
// already); that path has no backward. Differentiable otherwise. Values may be of another width than keys.
at::Tensor Attention(const at::Tensor& q_THC, const at::Tensor& k_TKC, const at::Tensor& v_TKC,
                     const SequenceView& view, int layer, const AttentionRule& rule);

// Whether pages may be fp8 (e4m3): kernels with the device and dtype of `like` read them, for the scale alone.
bool KernelsReadFp8(const at::Tensor& like, int64_t head_dim, const AttentionRule& rule);

// Attention over pages whose values are the first `value_dim` dims of the keys (one kv head): latent attention
// with its projections absorbed (arXiv 2405.04434). q_THC [T, H, C], new key_T1C [T, 1, C] -> [T, H, value_dim].
at::Tensor LatentAttention(const at::Tensor& q_THC, const at::Tensor& key_T1C, int64_t value_dim,
                           const SequenceView& view, int layer, const AttentionRule& rule);

// The slow and plain twin, computed in fp32 (or fp64 when q is), one sequence at a time; no pages. Also
// the path of a GPU for fp32 and for head dims that the kernels do not take.
at::Tensor AttentionReference(const at::Tensor& q_THC, const at::Tensor& k_TKC,
                              const at::Tensor& v_TKC, const SequenceView& view,
                              const AttentionRule& rule);

}  // namespace rein::nn
