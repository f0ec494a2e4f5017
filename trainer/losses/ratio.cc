#include "trainer/losses/ratio.h"

#include <ATen/ATen.h>

namespace rein::trainer {

at::Tensor TokenLogRatio(const at::Tensor& policy_logprob_T, const at::Tensor& old_logprob_T) {
  return (policy_logprob_T - old_logprob_T).clamp(-20, 20);
}

at::Tensor SequenceLogRatio(const at::Tensor& policy_logprob_T, const at::Tensor& old_logprob_T,
                            const Segments& segments) {
  at::Tensor own_T = policy_logprob_T.detach();
  at::Tensor mean_T = SpreadOver(MeanOf(own_T - old_logprob_T, segments), segments);
  return (policy_logprob_T - own_T + mean_T).clamp_max(10);
}

}  // namespace rein::trainer
