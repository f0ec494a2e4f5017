#include "trainer/losses/kto.h"

#include <ATen/ATen.h>

namespace rein::trainer {

KtoLoss Kto(const at::Tensor& policy_S, const at::Tensor& reference_S,
            const at::Tensor& desirable_S, double z, const KtoSettings& settings) {
  at::Tensor reward_S = settings.beta * (policy_S - reference_S);
  at::Tensor good = desirable_S.gt(0);
  at::Tensor gain_S = at::where(good, reward_S - settings.beta * z, settings.beta * z - reward_S);
  at::Tensor weight_S = at::full_like(gain_S.detach(), settings.undesirable_weight)
                            .masked_fill_(good, settings.desirable_weight);
  return {weight_S * (1 - at::sigmoid(gain_S)), reward_S.detach()};
}

}  // namespace rein::trainer
