#include "trainer/losses/cispo.h"

#include <ATen/ATen.h>

namespace rein::trainer {

SurrogateLoss Cispo(const at::Tensor& policy_logprob_T, const at::Tensor& log_ratio_T,
                    const at::Tensor& advantage_T, const WeightRange& range) {
  SurrogateLoss out;
  out.ratio_T = log_ratio_T.detach().exp();
  out.loss_T = -out.ratio_T.clamp(range.low, range.high) * advantage_T * policy_logprob_T;
  at::Tensor outside = out.ratio_T.lt(range.low).logical_or(out.ratio_T.gt(range.high));
  at::Tensor negative = advantage_T.lt(0);
  out.clipped_low_T = outside.logical_and(negative).to(out.ratio_T.scalar_type());
  out.clipped_high_T = outside.logical_and(negative.logical_not()).to(out.ratio_T.scalar_type());
  return out;
}

}  // namespace rein::trainer
