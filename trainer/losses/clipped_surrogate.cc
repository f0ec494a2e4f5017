#include "trainer/losses/clipped_surrogate.h"

#include <ATen/ATen.h>

namespace rein::trainer {

SurrogateLoss ClippedSurrogate(const at::Tensor& policy_logprob_T, const at::Tensor& old_logprob_T,
                               const at::Tensor& advantage_T, const ClipRange& clip) {
  constexpr double kMaxLogRatio = 20;
  at::Tensor ratio =
      (policy_logprob_T - old_logprob_T).clamp(-kMaxLogRatio, kMaxLogRatio).exp();
  at::Tensor plain = -advantage_T * ratio;
  at::Tensor clipped = -advantage_T * ratio.clamp(1 - clip.low, 1 + clip.high);
  SurrogateLoss out;
  out.loss_T = at::max(plain, clipped);
  out.ratio_T = ratio.detach();
  out.clipped_T = clipped.gt(plain).to(ratio.scalar_type());
  out.dual_T = at::zeros_like(out.ratio_T);
  if (clip.dual.has_value()) {
    at::Tensor bound = -advantage_T * *clip.dual;
    at::Tensor negative = advantage_T.lt(0);
    out.dual_T = out.loss_T.gt(bound).logical_and(negative).to(ratio.scalar_type());
    out.loss_T = at::where(negative, at::min(out.loss_T, bound), out.loss_T);
  }
  return out;
}

}  // namespace rein::trainer
