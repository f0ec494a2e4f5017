#include "common/nn/accumulate.h"

#include <ATen/ATen.h>

namespace rein::nn {

void AccumulateOuter(at::Tensor grad_ED, const at::Tensor& dy_TE, const at::Tensor& x_TD) {
  if (!grad_ED.defined()) return;
  if (dy_TE.scalar_type() == at::kFloat) {
    grad_ED.addmm_(dy_TE.t(), x_TD);
  } else if (dy_TE.is_cuda()) {
    at::addmm_out(grad_ED, grad_ED, dy_TE.t(), x_TD, at::kFloat);
  } else {
    grad_ED.addmm_(dy_TE.t().to(at::kFloat), x_TD.to(at::kFloat));
  }
}

}  // namespace rein::nn
