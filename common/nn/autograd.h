// What every differentiable function of this folder includes; only for .cc files.

#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "common/nn/weight.h"

namespace rein::nn {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

inline bool Records(const at::Tensor& x) {
  return at::GradMode::is_enabled() && x.defined() && x.requires_grad();
}

// Adds dy_TE^T x_TD to an fp32 [E, D] gradient, if there is one.
inline void AccumulateOuter(at::Tensor grad_ED, const at::Tensor& dy_TE, const at::Tensor& x_TD) {
  if (!grad_ED.defined()) return;
  if (dy_TE.scalar_type() == at::kFloat) {
    grad_ED.addmm_(dy_TE.t(), x_TD);
  } else if (dy_TE.is_cuda()) {
    grad_ED.add_(at::mm(dy_TE.t(), x_TD, at::kFloat));
  } else {
    grad_ED.addmm_(dy_TE.t().to(at::kFloat), x_TD.to(at::kFloat));
  }
}

// A tensor of the context; undefined when it was stored so.
inline at::Tensor Stored(AutogradContext* context, const char* key) {
  c10::IValue& value = context->saved_data[key];
  return value.isTensor() ? value.toTensor() : at::Tensor();
}

inline void Store(AutogradContext* context, const char* key, const at::Tensor& tensor) {
  if (tensor.defined()) context->saved_data[key] = tensor;
}

}  // namespace rein::nn
