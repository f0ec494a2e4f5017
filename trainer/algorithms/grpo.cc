// GRPO (arXiv 2402.03300): group-relative advantages, clipped surrogate, KL to the reference in the loss.

#include <ATen/ATen.h>

#include "trainer/advantages/group_relative.h"
#include "trainer/algorithms/algorithm.h"

namespace rein::trainer {

Algorithm Grpo(const GrpoSettings& s) {
  Algorithm grpo;
  grpo.name = "grpo";
  grpo.temperature = s.temperature;
  grpo.minibatches = s.minibatches;
  grpo.mask_truncated = s.mask_truncated;
  grpo.aggregation = s.aggregation;
  grpo.needs_behaviour = true;
  grpo.needs_reference = s.kl_coefficient > 0;
  grpo.advantages = [s](const std::vector<double>& reward, const std::vector<uint32_t>& group) {
    return GroupRelative(reward, group, {s.normalize_by_std, s.advantage_epsilon});
  };
  grpo.loss = [s](const LossInputs& in) {
    SurrogateLoss surrogate = ClippedSurrogate(in.policy_logprob_T, in.behaviour_logprob_T,
                                               in.advantage_T, s.clip);
    at::Tensor drift = (in.policy_logprob_T - in.behaviour_logprob_T).detach();
    at::Tensor below = in.advantage_T.lt(0).to(at::kFloat);
    LossTerms terms;
    terms.loss_T = surrogate.loss_T;
    terms.token_means = {{"policy_loss", surrogate.loss_T.detach()},
                         {"clip_ratio_low", surrogate.clipped_T * below},
                         {"clip_ratio_high", surrogate.clipped_T * (1 - below)},
                         {"clip_ratio_dual", surrogate.dual_T},
                         {"ratio_mean", surrogate.ratio_T},
                         {"approx_kl", drift.expm1() - drift},  // k3 of behaviour against policy
                         {"entropy", in.entropy_T.detach()},
                         {"logprob_diff_mean", drift.abs()}};
    terms.token_maxima = {{"ratio_max", surrogate.ratio_T}, {"logprob_diff_max", drift.abs()}};
    if (s.kl_coefficient > 0) {
      at::Tensor kl = Kl(in.policy_logprob_T, in.reference_logprob_T, s.kl_estimator);
      terms.loss_T = terms.loss_T + s.kl_coefficient * kl;
      terms.token_means.emplace_back("reference_kl", kl.detach());
    }
    return terms;
  };
  return grpo;
}

}  // namespace rein::trainer
