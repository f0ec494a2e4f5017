// Distillation on given answers: the divergence from a teacher at every target.

#include <ATen/ATen.h>

#include "trainer/algorithms/algorithm.h"

namespace rein::trainer {

Algorithm Distillation(TeacherDivergence divergence, double temperature) {
  Algorithm distill;
  distill.name = "distill";
  distill.temperature = temperature;
  distill.needs_teacher = true;
  distill.aggregation = Aggregation::kTokenMean;
  distill.token_mean_names = {"entropy", "token_loss", "teacher_agreement"};
  distill.loss = [divergence](const LossInputs& in) {
    LossTerms terms;
    const bool rest = in.candidate_logprob_TK.size(1) < in.vocabulary;
    terms.loss_T = DistillationLoss(in.candidate_logprob_TK, in.teacher_logprob_TK, rest, divergence);
    // Where the policy finds the same candidate likeliest.
    at::Tensor same_T = in.candidate_logprob_TK.detach().argmax(1).eq(in.teacher_logprob_TK.argmax(1));
    terms.token_means = {in.entropy_T.detach(), -in.policy_logprob_T.detach(), same_T.to(at::kFloat)};
    return terms;
  };
  return distill;
}

}  // namespace rein::trainer
