#include "common/nn/weight.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace rein::nn {

at::Tensor Merged(const Weight& weight) {
  if (weight.updates.empty()) return weight.value;
  at::NoGradGuard no_grad;
  at::Tensor wide = weight.value.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  at::Tensor rows = wide.view({-1, wide.size(-1)});
  for (const LowRankUpdate& u : weight.updates) {
    rows.narrow(0, u.first_row, u.rows)
        .addmm_(u.up.value.to(at::kFloat), u.down.value.to(at::kFloat), /*beta=*/1, u.scale);
  }
  return wide.to(weight.value.scalar_type());
}

}  // namespace rein::nn
