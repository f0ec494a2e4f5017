#include "trainer/losses/kl.h"

#include <ATen/ATen.h>

namespace rein::trainer {

at::Tensor Kl(const at::Tensor& policy_logprob_T, const at::Tensor& reference_logprob_T,
              KlEstimator estimator, KlClamp clamp) {
  at::Tensor x = reference_logprob_T - policy_logprob_T;
  switch (estimator) {
    case KlEstimator::kK1:
      return -x;
    case KlEstimator::kK2:
      return x.square() / 2;
    case KlEstimator::kK3:
      break;
  }
  if (clamp.input) x = x.clamp(-20, 20);
  at::Tensor k3 = x.exp() - x - 1;
  return clamp.output ? k3.clamp(-10, 10) : k3;
}

}  // namespace rein::trainer
