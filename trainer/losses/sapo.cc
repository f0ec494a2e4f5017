#include "trainer/losses/sapo.h"

#include <ATen/ATen.h>

namespace rein::trainer {

SurrogateLoss SoftGated(const at::Tensor& log_ratio_T, const at::Tensor& advantage_T,
                        const SoftGate& gate) {
  at::Tensor ratio = log_ratio_T.exp();
  at::Tensor tau = at::full_like(ratio.detach(), gate.tau_negative)
                       .masked_fill_(advantage_T.gt(0), gate.tau_positive);
  SurrogateLoss out;
  out.loss_T = -advantage_T * at::sigmoid(tau * (ratio - 1)) * (4 / tau);
  out.ratio_T = ratio.detach();
  out.clipped_low_T = at::zeros_like(out.ratio_T);
  out.clipped_high_T = out.clipped_low_T;
  return out;
}

}  // namespace rein::trainer
