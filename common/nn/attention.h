// Causal grouped-query attention over packed sequences (arXiv 2305.13245).
//
//   o[t, h] = softmax_j(q[t, h] . k[j, h / (H/K)] * scale) v[j, h / (H/K)],  j <= t in t's sequence
//
// T packed tokens, H heads, K kv heads (divides H), C head dim. Softmax is fp32 inside.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/sequence_view.h"

namespace rein::nn {

// q_THC [T, H, C], k_TKC and v_TKC [T, K, C] of one layer -> [T, H, C]. With view.pages all keys are read from
// the pages of `layer`, the new ones being written there first unless k is undefined (they are there
// already); that path has no backward. Differentiable otherwise.
at::Tensor Attention(const at::Tensor& q_THC, const at::Tensor& k_TKC, const at::Tensor& v_TKC,
                     const SequenceView& view, int layer, double scale);

// The slow and plain twin, computed in fp32 (or fp64 when q is), one sequence at a time; no pages. Also
// the path of a GPU for fp32 and for head dims that the kernels do not take.
at::Tensor AttentionReference(const at::Tensor& q_THC, const at::Tensor& k_TKC,
                              const at::Tensor& v_TKC, const SequenceView& view, double scale);

}  // namespace rein::nn
