#include "trainer/losses/clipped_surrogate.h"

#include <ATen/ATen.h>

namespace rein::trainer {

SurrogateLoss ClippedSurrogate(const at::Tensor& log_ratio_T, const at::Tensor& advantage_T,
                               const ClipRange& clip) {
  at::Tensor ratio = log_ratio_T.exp();
  at::Tensor capped = clip.cap.has_value() ? ratio.clamp_max(*clip.cap) : ratio;
  at::Tensor plain = -advantage_T * capped;
  at::Tensor clipped = -advantage_T * ratio.clamp(1 - clip.low, 1 + clip.high);
  SurrogateLoss out;
  out.loss_T = at::max(plain, clipped);
  out.ratio_T = ratio.detach();
  at::Tensor active = clipped.gt(plain);
  at::Tensor negative = advantage_T.lt(0);
  out.clipped_low_T = active.logical_and(negative).to(ratio.scalar_type());
  out.clipped_high_T = active.logical_and(negative.logical_not()).to(ratio.scalar_type());
  if (clip.dual.has_value()) {
    at::Tensor bound = -advantage_T * *clip.dual;
    out.dual_T = out.loss_T.gt(bound).logical_and(negative).to(ratio.scalar_type());
    out.loss_T = at::where(negative, at::min(out.loss_T, bound), out.loss_T);
  }
  return out;
}

}  // namespace rein::trainer
