#include "trainer/losses/kl.h"

#include <ATen/ATen.h>

namespace rein::trainer {

at::Tensor Kl(const at::Tensor& policy_logprob_T, const at::Tensor& reference_logprob_T,
              KlEstimator estimator, KlClamp clamp) {
  at::Tensor x = reference_logprob_T - policy_logprob_T;
  auto through = [&](KlEstimator value) {  // its value, the gradient of k2
    at::Tensor k2 = x.square() / 2;
    return Kl(policy_logprob_T.detach(), reference_logprob_T, value, clamp) + k2 - k2.detach();
  };
  switch (estimator) {
    case KlEstimator::kK1:
      return -x;
    case KlEstimator::kAbs:
      return x.abs();
    case KlEstimator::kK2:
      return x.square() / 2;
    case KlEstimator::kK1StraightThrough:
      return through(KlEstimator::kK1);
    case KlEstimator::kK3StraightThrough:
      return through(KlEstimator::kK3);
    case KlEstimator::kK3:
      break;
  }
  if (clamp.input) x = x.clamp(-20, 20);
  at::Tensor k3 = x.exp() - x - 1;
  return clamp.output ? k3.clamp(-10, 10) : k3;
}

at::Tensor ImportanceWeightedKl(const at::Tensor& kl_T, const at::Tensor& log_ratio_T) {
  return kl_T * log_ratio_T.exp();
}

}  // namespace rein::trainer
