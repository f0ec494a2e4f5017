// Attention in LibTorch's own operations, for every rule and shape; what the kernels do not take runs here.
//
// T packed tokens, H heads, K kv heads, C head dim of queries and keys, D head dim of values.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/attention.h"
#include "common/nn/sequence_view.h"

namespace rein::nn {

// Computed in fp32 (or fp64 when q is), one sequence at a time -> [T, H, D]. Differentiable.
at::Tensor AttendPacked(const at::Tensor& q_THC, const at::Tensor& k_TKC, const at::Tensor& v_TKD,
                        const SequenceView& view, const AttentionRule& rule);

// Keys and values in the pages of the view, [pages, page_tokens, K, C] and [.., D]; all keys of every page are
// read and those that are not there yet are hidden, so that no length is copied to the host. No backward.
at::Tensor AttendPages(const at::Tensor& q_THC, const at::Tensor& key_pages,
                       const at::Tensor& value_pages, const SequenceView& view,
                       const AttentionRule& rule);

}  // namespace rein::nn
