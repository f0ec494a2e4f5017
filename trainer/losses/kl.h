// Estimators of KL(policy || reference) from the tokens that were drawn.
//
// With x = reference - policy (John Schulman, "Approximating KL Divergence"; verl kl_penalty):
//   k1: -x    abs: |x|    k2: x^2 / 2    k3: exp(x) - x - 1
// The gradient of k1 is not that of the KL (its mean is 0), that of k2 is, on policy. The straight-through
// forms (verl "k1+", "k3+") have the value of k1 or k3 and the gradient of k2.
// Peers clamp differently: verl and ours x to +-20 and k3 to +-10; TRL and slime's k3 nothing; slime's
// low_var_kl and OpenRLHF the value to +-10; NeMo-RL both.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::trainer {

enum class KlEstimator { kK1, kK2, kK3, kAbs, kK1StraightThrough, kK3StraightThrough };

struct KlClamp {
  bool input = true;   // k3: x to +-20 first
  bool output = true;  // k3: the value to +-10 last
};

// [T], differentiable by policy_logprob_T; clamps pass the gradient on their closed interval.
at::Tensor Kl(const at::Tensor& policy_logprob_T, const at::Tensor& reference_logprob_T,
              KlEstimator estimator, KlClamp clamp = {});

// kl_T weighted by policy / behaviour, the gradient through the weight too: the estimate stays unbiased for
// tokens that an older policy sampled (DeepSeek-V3.2, arXiv 2512.02556; slime use_unbiased_kl, TRL
// use_bias_correction_kl). log_ratio_T: see TokenLogRatio.
at::Tensor ImportanceWeightedKl(const at::Tensor& kl_T, const at::Tensor& log_ratio_T);

}  // namespace rein::trainer
