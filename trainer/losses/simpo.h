// SimPO: preference optimisation by mean log-probs, without a reference.

#pragma once

#include "trainer/losses/dpo.h"

namespace rein::trainer {

struct SimpoSettings {
  double beta = 2;
  double gamma = 1;  // the margin; paper beta 2 to 2.5, gamma 0.3 to 1.6; TRL simpo_gamma 0.5
};

// SimPO (arXiv 2405.14734; TRL CPOTrainer loss_type "simpo"), l mean log-probs over the targets:
//   -log sigmoid(beta (l_chosen - l_rejected) - gamma);   implicit reward beta l
PairLoss Simpo(const PairLogprobs& pairs, const SimpoSettings& settings);

}  // namespace rein::trainer
