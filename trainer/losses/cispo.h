// Clipped importance weights instead of clipped objectives: every token keeps its gradient.

#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/losses/surrogate.h"

namespace rein::trainer {

// The range that weights are clipped to, as ratios.
struct WeightRange {
  double low = 0;   // Tinker 0; verl 1 - clip_ratio_low
  double high = 5;  // TRL epsilon_high 5.0 and Tinker 4.0 are ratios; verl's is 1 + clip_ratio_high
};

// CISPO (arXiv 2506.13585; verl compute_policy_loss_cispo, TRL loss_type "cispo"), T target tokens:
//   l = -sg(clamp(r, low, high)) A policy,   r = exp(log_ratio), see ratio.h
SurrogateLoss Cispo(const at::Tensor& policy_logprob_T, const at::Tensor& log_ratio_T,
                    const at::Tensor& advantage_T, const WeightRange& range);

}  // namespace rein::trainer
