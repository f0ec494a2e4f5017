#include "trainer/losses/geometric_surrogate.h"

#include <ATen/ATen.h>

namespace rein::trainer {

SurrogateLoss GeometricSurrogate(const at::Tensor& policy_logprob_T,
                                 const at::Tensor& old_logprob_T, const at::Tensor& advantage_T,
                                 const LogClip& clip, const Segments& segments) {
  at::Tensor d_T = policy_logprob_T - old_logprob_T;
  at::Tensor sign_T = advantage_T.sign();
  at::Tensor k_T = sign_T * at::min(sign_T * d_T, sign_T * d_T.clamp(-clip.low, clip.high));
  at::Tensor own_T = k_T.detach();
  at::Tensor mean_T = SpreadOver(MeanOf(own_T, segments), segments);
  SurrogateLoss out;
  out.loss_T = -advantage_T * (k_T - own_T + mean_T).exp();
  out.ratio_T = mean_T.exp();
  at::Tensor drift_T = d_T.detach();
  out.clipped_low_T = sign_T.lt(0).logical_and(drift_T.lt(-clip.low)).to(d_T.scalar_type());
  out.clipped_high_T = sign_T.gt(0).logical_and(drift_T.gt(clip.high)).to(d_T.scalar_type());
  return out;
}

}  // namespace rein::trainer
