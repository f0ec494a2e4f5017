#include "common/nn/scalar_head.h"

#include <ATen/ATen.h>

#include "common/nn/autograd.h"

namespace rein::nn {
namespace {

at::Tensor Scores(const at::Tensor& hidden_ND, const at::Tensor& head_1D) {
  return at::mv(hidden_ND.to(at::kFloat), head_1D.squeeze(0).to(at::kFloat));
}

struct ScalarHeadFunction : public Function<ScalarHeadFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden_ND,
                            const Weight& head_1D) {
    Store(context, "hidden", hidden_ND);
    Store(context, "head", head_1D.value);
    Store(context, "grad", head_1D.grad);
    return Scores(hidden_ND, head_1D.value);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor hidden_ND = Stored(context, "hidden"), head_1D = Stored(context, "head"),
               grad_1D = Stored(context, "grad");
    at::Tensor dy_N1 = dy[0].unsqueeze(1);
    if (grad_1D.defined()) grad_1D.addmm_(dy_N1.t(), hidden_ND.to(at::kFloat));
    return {at::mm(dy_N1, head_1D.to(at::kFloat)).to(hidden_ND.scalar_type()), at::Tensor()};
  }
};

}  // namespace

at::Tensor ScalarHead(const at::Tensor& hidden_ND, const Weight& head_1D) {
  return Records(hidden_ND) ? ScalarHeadFunction::apply(hidden_ND, head_1D)
                            : Scores(hidden_ND, head_1D.value);
}

}  // namespace rein::nn
