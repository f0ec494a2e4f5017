// Direct preference optimisation: a policy learns from pairs without a reward model.
//
// P pairs. All tensors floating point [P]: sums of the log-probs of a completion's targets.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::trainer {

struct PairLogprobs {
  at::Tensor chosen_P, rejected_P;                      // of the policy; differentiable
  at::Tensor reference_chosen_P, reference_rejected_P;  // undefined: reference-free, counted as 0
  at::Tensor chosen_tokens_P, rejected_tokens_P;        // numbers of targets; normalised forms only
};

struct PairLoss {
  at::Tensor loss_P;                              // differentiable
  at::Tensor chosen_reward_P, rejected_reward_P;  // implicit rewards; detached
};

enum class DpoLoss {
  kSigmoid,  // -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)   (arXiv 2305.18290; smoothing e: cDPO)
  kIpo,      // (h - 1 / (2 beta))^2 with h of means over tokens        (arXiv 2310.12036; TRL)
  kIpoSum,   // the same with h of sums                                 (OpenRLHF)
  kHinge,    // max(0, 1 - beta h)                                      (SLiC, arXiv 2305.10425; TRL)
};

struct DpoSettings {
  DpoLoss loss = DpoLoss::kSigmoid;
  double beta = 0.1;
  double label_smoothing = 0;  // kSigmoid only; in [0, 0.5)
};

// h = (chosen - reference_chosen) - (rejected - reference_rejected). The implicit reward of a completion is
// beta (policy - reference). Where the policy is the reference, kSigmoid is ln 2.
PairLoss Dpo(const PairLogprobs& pairs, const DpoSettings& settings);

}  // namespace rein::trainer
