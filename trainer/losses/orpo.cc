#include "trainer/losses/orpo.h"

#include <ATen/ATen.h>

namespace rein::trainer {
namespace {

at::Tensor LogOdds(const at::Tensor& logprob_P) {
  at::Tensor bounded = logprob_P.clamp_max(-1e-6);
  return bounded - (-bounded.expm1()).log();
}

}  // namespace

PairLoss Orpo(const PairLogprobs& pairs, double beta) {
  at::Tensor chosen_P = pairs.chosen_P / pairs.chosen_tokens_P;
  at::Tensor rejected_P = pairs.rejected_P / pairs.rejected_tokens_P;
  at::Tensor logit_P = LogOdds(chosen_P) - LogOdds(rejected_P);
  return {-chosen_P - beta * at::log_sigmoid(logit_P), beta * chosen_P.detach(),
          beta * rejected_P.detach()};
}

}  // namespace rein::trainer
