// Corrections and figures for rollouts that another policy sampled than the one that learns from them.
//
// T target tokens of S sequences, x = proximal - behaviour: the log-prob under the policy at the start of
// the Update less that under the one that sampled. Nothing here has a gradient.

#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "trainer/losses/segments.h"

namespace rein::trainer {

enum class WeightLevel { kToken, kSequence };

struct ImportanceCorrection {
  WeightLevel level = WeightLevel::kToken;
  bool mask = false;           // false: truncated (TIS), true: masked (MIS; with both bounds IcePop)
  std::optional<double> low;   // masked only
  double high = 2;             // verl rollout_is_threshold 2, TRL cap 3, slime [0, 2]
};

// [T] weights to multiply token losses with (TIS: Yao et al. 2025, "Your efficient RL framework secretly
// brings you off-policy RL training"; IcePop: arXiv 2510.18855; verl rollout_corr_helper; decoupled PPO,
// arXiv 2205.09123, is a ratio to `proximal` times this weight):
//   w = exp(clamp(x, -20, 20)), or exp(clamp(sum of x over the sequence, -20, 20)) for its every token
//   truncated: min(w, high)          masked: w where low <= w <= high, else 0
at::Tensor ImportanceWeight(const at::Tensor& x_T, const Segments& segments,
                            const ImportanceCorrection& correction);

enum class RejectionStatistic {
  kTokenK1, kTokenK2, kTokenK3,             // of each token
  kSequenceSumK1, kSequenceSumK2, kSequenceSumK3,
  kSequenceMeanK1, kSequenceMeanK2, kSequenceMeanK3,
  kSequenceMaxK1, kSequenceMaxK2, kSequenceMaxK3,
};

struct Rejection {
  RejectionStatistic statistic = RejectionStatistic::kTokenK3;
  std::optional<double> low;  // k1 only: a ratio
  double high = 0.05;         // k1: a ratio; k2, k3: the statistic itself
};

// [T] of 0 and 1: which tokens are kept (verl rollout_rs), with x clamped to +-20 and
//   k1 = -x,  k2 = x^2 / 2,  k3 = exp(x) - 1 - x,  of a token, or summed, averaged or the largest over its
//   sequence;   kept where k <= high, for k1 where log(low) <= k <= log(high)
// Rejected tokens lose their gradient; denominators stay those of the whole batch (AReaL does the same).
at::Tensor RejectionMask(const at::Tensor& x_T, const Segments& segments,
                         const Rejection& rejection);

// Off-policy sequence masking (slime and TRL OPSM, after DeepSeek-V3.2, arXiv 2512.02556): 0 for the tokens of
// a sequence with A < 0 whose mean of (behaviour - policy) exceeds `delta`, else 1.
at::Tensor NegativeSequenceMask(const at::Tensor& policy_logprob_T,
                                const at::Tensor& behaviour_logprob_T,
                                const at::Tensor& advantage_T, const Segments& segments,
                                double delta);

// Figures whose means over all tokens tell how far two versions are apart, with x clamped to +-20; [T] each:
//   k1 -x, k3 exp(x) - x - 1, abs |x|, mult exp|x| (NeMo-RL token_mult_prob_error), square exp(2x) (its mean
//   less 1 is the chi-square divergence), weight min(exp(x), weight_cap), and its square
struct OffPolicyFigures {
  at::Tensor k1_T, k3_T, abs_T, mult_T, square_T, weight_T, weight_square_T;
};
OffPolicyFigures MeasureOffPolicy(const at::Tensor& x_T, double weight_cap = 2);

// Share of the tokens that count as much as on-policy ones, in (0, 1]: 1 / mean((w / mean w)^2), from the
// means of w and of w^2 (verl ess).
double EffectiveSampleShare(double mean_weight, double mean_weight_square);

}  // namespace rein::trainer
