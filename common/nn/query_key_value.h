// From the joint q/k/v projection to what attention takes: norms of each head where the family has them,
// and the rotary turn (RoPE, arXiv 2104.09864, half-split pairing).
//
// T packed tokens, H heads, K kv heads, C head dim.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/norm.h"
#include "common/nn/rotary.h"
#include "common/nn/sequence_view.h"
#include "common/nn/weight.h"

namespace rein::nn {

struct HeadShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  NormKind norm = NormKind::kRms;  // of q and k, where they have one
  bool norm_over_all = false;      // over all heads of q, and of k, at once; else over each head
  bool kv_fp8 = false;             // k and v are rounded; see nn/fp8.h
};

struct QueryKeyValue {
  at::Tensor q_THC, k_TKC, v_TKC;  // k and v undefined: they stand in the pages already
};

// qkv_TE is [T, (H + 2K) C]. q_norm and k_norm, [C] or, over all, [H C] and [K C], may be undefined, and so may
// rotary: no turn. Differentiable unless view.pages.
QueryKeyValue SplitQueryKeyValue(const at::Tensor& qkv_TE, const HeadShape& shape,
                                 const Weight& q_norm, const Weight& k_norm, double eps,
                                 const Rotary& rotary, const SequenceView& view, int layer);

}  // namespace rein::nn
