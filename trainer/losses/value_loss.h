// What the critic learns.

#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace rein::trainer {

struct ValueLoss {
  at::Tensor loss_T;     // differentiable by value_T
  at::Tensor clipped_T;  // 1 where the clipped value decides; detached
};

// PPO's value loss (verl compute_value_loss; OpenRLHF), T target tokens:
//   vc = clamp(value, old - clip, old + clip),   l = max((value - return)^2, (vc - return)^2) / 2
// without `clip` only the first term. slime and miles leave the half out.
ValueLoss ClippedValueLoss(const at::Tensor& value_T, const at::Tensor& old_value_T,
                           const at::Tensor& return_T, std::optional<double> clip);

}  // namespace rein::trainer
