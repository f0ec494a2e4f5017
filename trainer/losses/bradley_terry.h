// What a reward model learns from pairs.
//
// P pairs. Tensors floating point [P].

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::trainer {

struct BradleyTerryLoss {
  at::Tensor loss_P;    // -log sigmoid(chosen - rejected - margin)
  at::Tensor center_P;  // (chosen + rejected)^2; to be weighed by a coefficient
};

// Bradley-Terry (arXiv 2203.02155; margin: Llama 2, arXiv 2307.09288; centring: arXiv 2312.09244, TRL
// center_rewards_coefficient). Both differentiable by the rewards. `margin_P` may be undefined.
BradleyTerryLoss BradleyTerry(const at::Tensor& chosen_P, const at::Tensor& rejected_P,
                              const at::Tensor& margin_P);

}  // namespace rein::trainer
