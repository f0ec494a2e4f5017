#include "common/nn/leaf.h"

#include <ATen/ATen.h>

#include "common/nn/autograd.h"

namespace rein::nn {
namespace {

struct LeafFunction : public Function<LeafFunction> {
  // `anchor` only makes the output part of the graph.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*anchor*/,
                            const Weight& weight, at::ScalarType type) {
    Store(context, "grad", weight.grad);
    return weight.value.to(type).detach();
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    Stored(context, "grad").add_(dy[0].to(at::kFloat));
    return {at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor Leaf(const Weight& weight, at::ScalarType type) {
  if (type == at::ScalarType::Undefined) type = weight.value.scalar_type();
  if (!at::GradMode::is_enabled() || !weight.grad.defined()) return weight.value.to(type);
  at::Tensor anchor = at::zeros({1}, weight.value.options()).requires_grad_(true);
  return LeafFunction::apply(anchor, weight, type);
}

}  // namespace rein::nn
