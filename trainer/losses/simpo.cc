#include "trainer/losses/simpo.h"

#include <ATen/ATen.h>

namespace rein::trainer {

PairLoss Simpo(const PairLogprobs& pairs, const SimpoSettings& settings) {
  at::Tensor chosen_P = pairs.chosen_P / pairs.chosen_tokens_P;
  at::Tensor rejected_P = pairs.rejected_P / pairs.rejected_tokens_P;
  return {-at::log_sigmoid(settings.beta * (chosen_P - rejected_P) - settings.gamma),
          settings.beta * chosen_P.detach(), settings.beta * rejected_P.detach()};
}

}  // namespace rein::trainer
