// KTO: preference optimisation from single completions, each marked good or bad.
//
// S completions. Tensors floating point [S]: sums of the log-probs of a completion's targets.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::trainer {

struct KtoSettings {
  double beta = 0.1;
  double desirable_weight = 1;    // of good completions
  double undesirable_weight = 1;  // of bad ones
};

struct KtoLoss {
  at::Tensor loss_S;    // differentiable by policy_S
  at::Tensor reward_S;  // beta (policy - reference); detached
};

// KTO (arXiv 2402.01306; TRL KTOTrainer loss_type "kto"):
//   good: w (1 - sigmoid(beta (policy - reference) - beta z))
//   bad:  w (1 - sigmoid(beta z - beta (policy - reference)))
// `z` estimates KL(policy || reference) on mismatched prompts and completions, at least 0, without gradient.
// desirable_S is 1 for good and 0 for bad completions.
KtoLoss Kto(const at::Tensor& policy_S, const at::Tensor& reference_S,
            const at::Tensor& desirable_S, double z, const KtoSettings& settings);

}  // namespace rein::trainer
