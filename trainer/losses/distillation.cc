#include "trainer/losses/distillation.h"

#include <ATen/ATen.h>

namespace rein::trainer {
namespace {

at::Tensor WithRest(const at::Tensor& logprob_TK) {
  at::Tensor rest_T1 = (1 - logprob_TK.exp().sum(1, /*keepdim=*/true)).clamp_min(kLeastRest).log();
  return at::cat({logprob_TK, rest_T1}, 1);
}

}  // namespace

at::Tensor DistillationLoss(const at::Tensor& policy_TK, const at::Tensor& teacher_TK, bool rest,
                            TeacherDivergence divergence) {
  at::Tensor policy = rest ? WithRest(policy_TK) : policy_TK;
  at::Tensor teacher = rest ? WithRest(teacher_TK) : teacher_TK;
  return divergence == TeacherDivergence::kForward ? (teacher.exp() * (teacher - policy)).sum(1)
                                            : (policy.exp() * (policy - teacher)).sum(1);
}

}  // namespace rein::trainer
