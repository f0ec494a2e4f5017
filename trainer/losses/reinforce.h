// The plain policy gradient.

#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/losses/surrogate.h"

namespace rein::trainer {

// REINFORCE (Williams 1992; verl "bypass" mode, NeMo-RL reinforce mode), T target tokens: l = -A policy. The
// ratio is told for the figures only; an importance weight (off_policy.h) may be multiplied in.
SurrogateLoss Reinforce(const at::Tensor& policy_logprob_T, const at::Tensor& log_ratio_T,
                        const at::Tensor& advantage_T);

}  // namespace rein::trainer
