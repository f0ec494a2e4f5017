// ORPO: supervised fine-tuning with an odds-ratio penalty, without a reference.

#pragma once

#include "trainer/losses/dpo.h"

namespace rein::trainer {

// ORPO (arXiv 2403.07691), l mean log-probs over the targets, odds(l) = exp(l) / (1 - exp(l)):
//   -l_chosen - beta log sigmoid(log odds(l_chosen) - log odds(l_rejected));   implicit reward beta l
// The paper's lambda is TRL's beta (0.1). TRL takes the first term over the prompt too. Means above -1e-6
// count as -1e-6 in the odds, so that a certain completion stays finite.
PairLoss Orpo(const PairLogprobs& pairs, double beta);

}  // namespace rein::trainer
