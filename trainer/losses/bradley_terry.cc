#include "trainer/losses/bradley_terry.h"

#include <ATen/ATen.h>

namespace rein::trainer {

BradleyTerryLoss BradleyTerry(const at::Tensor& chosen_P, const at::Tensor& rejected_P,
                              const at::Tensor& margin_P) {
  at::Tensor gap_P = chosen_P - rejected_P;
  if (margin_P.defined()) gap_P = gap_P - margin_P;
  return {-at::log_sigmoid(gap_P), (chosen_P + rejected_P).square()};
}

}  // namespace rein::trainer
