// GRPO (arXiv 2402.03300): group-relative advantages, clipped surrogate, KL to the reference in the loss.

#include <ATen/ATen.h>

#include "trainer/advantages/group_relative.h"
#include "trainer/algorithms/algorithm.h"
#include "trainer/losses/ratio.h"

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
  grpo.token_mean_names = {"policy_loss", "clip_ratio_low", "clip_ratio_high", "clip_ratio_dual",
                           "ratio_mean",  "approx_kl",      "entropy",         "logprob_diff_mean"};
  if (grpo.needs_reference) grpo.token_mean_names.push_back("reference_kl");
  grpo.token_max_names = {"ratio_max", "logprob_diff_max"};
  grpo.advantages = [s](const std::vector<double>& reward, const std::vector<uint32_t>& group) {
    return GroupRelative(reward, group, {s.normalize_by_std, s.advantage_epsilon});
  };
  grpo.loss = [s](const LossInputs& in) {
    SurrogateLoss surrogate = ClippedSurrogate(
        TokenLogRatio(in.policy_logprob_T, in.behaviour_logprob_T), in.advantage_T, s.clip);
    at::Tensor drift = (in.policy_logprob_T - in.behaviour_logprob_T).detach();
    LossTerms terms;
    terms.loss_T = surrogate.loss_T;
    terms.token_means = {surrogate.loss_T.detach(),
                         surrogate.clipped_low_T,
                         surrogate.clipped_high_T,
                         surrogate.dual_T.defined() ? surrogate.dual_T : at::zeros_like(drift),
                         surrogate.ratio_T,
                         drift.expm1() - drift,  // k3 of behaviour against policy
                         in.entropy_T.detach(),
                         drift.abs()};
    terms.token_maxima = {surrogate.ratio_T, drift.abs()};
    if (s.kl_coefficient > 0) {
      at::Tensor kl = Kl(in.policy_logprob_T, in.reference_logprob_T, s.kl_estimator);
      terms.loss_T = terms.loss_T + s.kl_coefficient * kl;
      terms.token_means.push_back(kl.detach());
    }
    return terms;
  };
  return grpo;
}

}  // namespace rein::trainer
