#include "trainer/losses/dpo.h"

#include <ATen/ATen.h>

namespace rein::trainer {

PairLoss Dpo(const PairLogprobs& pairs, const DpoSettings& settings) {
  at::Tensor chosen_P = pairs.chosen_P, rejected_P = pairs.rejected_P;
  if (pairs.reference_chosen_P.defined()) {
    chosen_P = chosen_P - pairs.reference_chosen_P;
    rejected_P = rejected_P - pairs.reference_rejected_P;
  }
  PairLoss out;
  out.chosen_reward_P = settings.beta * chosen_P.detach();
  out.rejected_reward_P = settings.beta * rejected_P.detach();
  at::Tensor h_P = chosen_P - rejected_P;
  switch (settings.loss) {
    case DpoLoss::kSigmoid: {
      const double e = settings.label_smoothing;
      at::Tensor logit_P = settings.beta * h_P;
      out.loss_P = -(1 - e) * at::log_sigmoid(logit_P) - e * at::log_sigmoid(-logit_P);
      break;
    }
    case DpoLoss::kIpo:
      h_P = chosen_P / pairs.chosen_tokens_P - rejected_P / pairs.rejected_tokens_P;
      [[fallthrough]];
    case DpoLoss::kIpoSum:
      out.loss_P = (h_P - 1 / (2 * settings.beta)).square();
      break;
    case DpoLoss::kHinge:
      out.loss_P = at::relu(1 - settings.beta * h_P);
      break;
  }
  return out;
}

}  // namespace rein::trainer
