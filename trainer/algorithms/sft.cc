// Supervised fine-tuning: cross-entropy on the targets.

#include <ATen/ATen.h>

#include "trainer/algorithms/algorithm.h"

namespace rein::trainer {

Algorithm Sft(Aggregation aggregation) {
  Algorithm sft;
  sft.name = "sft";
  sft.aggregation = aggregation;
  sft.token_mean_names = {"entropy", "token_loss"};
  sft.loss = [](const LossInputs& in) {
    LossTerms terms;
    terms.loss_T = -in.policy_logprob_T;
    terms.token_means = {in.entropy_T.detach(), terms.loss_T.detach()};
    return terms;
  };
  return sft;
}

}  // namespace rein::trainer
