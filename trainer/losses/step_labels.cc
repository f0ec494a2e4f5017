#include "trainer/losses/step_labels.h"

#include <ATen/ATen.h>

namespace rein::trainer {

at::Tensor StepLabelLoss(const at::Tensor& score_N, const at::Tensor& label_N) {
  return -label_N * at::log_sigmoid(score_N) - (1 - label_N) * at::log_sigmoid(-score_N);
}

}  // namespace rein::trainer
