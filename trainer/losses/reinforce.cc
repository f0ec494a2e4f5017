#include "trainer/losses/reinforce.h"

#include <ATen/ATen.h>

namespace rein::trainer {

SurrogateLoss Reinforce(const at::Tensor& policy_logprob_T, const at::Tensor& log_ratio_T,
                        const at::Tensor& advantage_T) {
  SurrogateLoss out;
  out.loss_T = -advantage_T * policy_logprob_T;
  out.ratio_T = log_ratio_T.detach().exp();
  out.clipped_low_T = at::zeros_like(out.ratio_T);
  out.clipped_high_T = out.clipped_low_T;
  return out;
}

}  // namespace rein::trainer
