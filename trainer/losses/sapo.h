// A soft gate where PPO has a hard clip.

#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/losses/surrogate.h"

namespace rein::trainer {

struct SoftGate {
  double tau_positive = 1;     // steepness where A > 0
  double tau_negative = 1.05;  // where A <= 0
};

// SAPO (arXiv 2511.20347; verl compute_policy_loss_sapo, TRL loss_type "sapo"), T target tokens:
//   l = -A sigmoid(tau (r - 1)) 4 / tau,   r = exp(log_ratio), see ratio.h
// At r = 1 the gradient is that of -A r. Nothing is clipped: the clip figures are 0.
SurrogateLoss SoftGated(const at::Tensor& log_ratio_T, const at::Tensor& advantage_T,
                        const SoftGate& gate);

}  // namespace rein::trainer
