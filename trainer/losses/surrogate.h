// What every policy-gradient objective gives: a loss for each token, and figures about it.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::trainer {

// T target tokens. All but loss_T are detached.
struct SurrogateLoss {
  at::Tensor loss_T;          // differentiable by the policy's log-probs
  at::Tensor ratio_T;         // policy / old at the level that the objective uses
  at::Tensor clipped_low_T;   // 1 where a negative advantage meets its bound: nothing is learned there
  at::Tensor clipped_high_T;  // the same for a positive advantage
  at::Tensor dual_T;          // 1 where the dual clip is active; undefined without one
};

}  // namespace rein::trainer
