// What each target token earns: the completion's reward at its last token, less a penalty for moving away
// from the reference policy.

#pragma once

#include <cstdint>
#include <vector>

#include "trainer/advantages/token_rows.h"

namespace rein::trainer {

// 0 at every target, `reward[i]` at the last one of row i (rows without targets stay empty).
TokenRows RewardAtEnd(const std::vector<double>& reward, const std::vector<int64_t>& targets);

// r_t - coefficient (policy_t - reference_t): KL in the reward (arXiv 1909.08593; verl apply_kl_penalty with
// "kl"), with the log-probs of the policy that sampled.
void SubtractKl(const TokenRows& policy_logprob, const TokenRows& reference_logprob,
                double coefficient, TokenRows& token_reward);

// The next coefficient of an adaptive controller (arXiv 1909.08593; verl AdaptiveKLController):
//   coefficient (1 + clip(kl / target - 1, -0.2, 0.2) rollouts / horizon)
// `kl` is what was measured on `rollouts` completions; `target` and `horizon` are positive.
double NextKlCoefficient(double coefficient, double kl, double target, double rollouts,
                         double horizon);

}  // namespace rein::trainer
