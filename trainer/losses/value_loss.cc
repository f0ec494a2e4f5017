#include "trainer/losses/value_loss.h"

#include <ATen/ATen.h>

namespace rein::trainer {

ValueLoss ClippedValueLoss(const at::Tensor& value_T, const at::Tensor& old_value_T,
                           const at::Tensor& return_T, std::optional<double> clip) {
  at::Tensor plain = (value_T - return_T).square();
  if (!clip.has_value()) return {plain / 2, at::zeros_like(plain.detach())};
  // Unlike min(max()), clamp passes the whole gradient at its bounds.
  at::Tensor near = at::clamp(value_T, old_value_T - *clip, old_value_T + *clip);
  at::Tensor clipped = (near - return_T).square();
  return {at::max(plain, clipped) / 2, clipped.gt(plain).to(plain.scalar_type()).detach()};
}

}  // namespace rein::trainer
