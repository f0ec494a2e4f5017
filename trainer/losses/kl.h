// Estimators of KL(policy || reference) from the tokens that were drawn.
//
// With x = reference - policy (John Schulman, "Approximating KL Divergence"; verl kl_penalty):
//   k1: -x    k2: x^2 / 2    k3: exp(x) - x - 1

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::trainer {

enum class KlEstimator { kK1, kK2, kK3 };

struct KlClamp {
  bool input = true;   // k3: x to +-20 first
  bool output = true;  // k3: the value to +-10 last
};

// [T], differentiable by policy_logprob_T; clamps pass the gradient on their closed interval.
at::Tensor Kl(const at::Tensor& policy_logprob_T, const at::Tensor& reference_logprob_T,
              KlEstimator estimator, KlClamp clamp = {});

}  // namespace rein::trainer
