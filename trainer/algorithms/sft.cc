// Supervised fine-tuning and pretraining: cross-entropy on the targets; z-loss of PaLM (arXiv 2204.02311).

#include <ATen/ATen.h>

#include "trainer/algorithms/algorithm.h"

namespace rein::trainer {

Algorithm Sft(Aggregation aggregation, double z_loss) {
  Algorithm sft;
  sft.name = "sft";
  sft.aggregation = aggregation;
  sft.weighs_targets = true;
  sft.token_mean_names = {"entropy", "token_loss"};
  sft.log_partition = z_loss > 0;
  if (z_loss > 0) sft.token_mean_names.push_back("z_loss");
  sft.loss = [z_loss](const LossInputs& in) {
    LossTerms terms;
    terms.loss_T = -in.policy_logprob_T;
    terms.token_means = {in.entropy_T.detach(), terms.loss_T.detach()};
    if (z_loss > 0) {
      at::Tensor z_T = z_loss * in.log_partition_T.square();
      terms.loss_T = terms.loss_T + z_T;
      terms.token_means.push_back(z_T.detach());
    }
    return terms;
  };
  return sft;
}

}  // namespace rein::trainer
