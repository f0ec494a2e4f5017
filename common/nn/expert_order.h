// The choices of all tokens, sorted by expert, so that each expert's rows stand side by side.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::nn {

// Of N = T K choices; within an expert as they come.
struct ExpertOrder {
  at::Tensor choice_N;  // int64: which choice, t K + k, stands at a place of the sorted order
  at::Tensor place_TK;  // int64: where a choice stands there
  at::Tensor end_E;     // int32: where an expert's rows end
};

// expert_TK int64, each below `experts`.
ExpertOrder SortByExpert(const at::Tensor& expert_TK, int64_t experts);

}  // namespace rein::nn
