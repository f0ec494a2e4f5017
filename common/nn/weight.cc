#include "common/nn/weight.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace rein::nn {

int64_t Weight::size(int64_t dim) const {
  return quantised == nullptr ? value.size(dim) : quantised->shape[static_cast<size_t>(dim)];
}

at::Tensor Weight::Dense() const { return quantised == nullptr ? value : Unpacked(*quantised); }

at::Tensor Merged(const Weight& weight) {
  at::Tensor base = weight.Dense();
  if (weight.updates.empty()) return base;
  at::NoGradGuard no_grad;
  at::Tensor wide = base.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  at::Tensor rows = wide.view({-1, wide.size(-1)});
  for (const LowRankUpdate& u : weight.updates) {
    rows.narrow(0, u.first_row, u.rows)
        .addmm_(u.up.value.to(at::kFloat), u.down.value.to(at::kFloat), /*beta=*/1, u.scale);
  }
  return wide.to(base.scalar_type());
}

}  // namespace rein::nn
