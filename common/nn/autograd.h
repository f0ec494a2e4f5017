// What every differentiable function of this folder includes; only for .cc files.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "common/nn/accumulate.h"
#include "common/nn/weight.h"

namespace rein::nn {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

inline bool Records(const at::Tensor& x) {
  return at::GradMode::is_enabled() && x.defined() && x.requires_grad();
}

// A tensor of the context; undefined when it was stored so.
inline at::Tensor Stored(AutogradContext* context, const char* key) {
  c10::IValue& value = context->saved_data[key];
  return value.isTensor() ? value.toTensor() : at::Tensor();
}

inline void Store(AutogradContext* context, const char* key, const at::Tensor& tensor) {
  if (tensor.defined()) context->saved_data[key] = tensor;
}

// A weight of the context, with its updates; a quantised one stays so.
struct HeldWeight : torch::CustomClassHolder {
  explicit HeldWeight(Weight w) : weight(std::move(w)) {}
  Weight weight;
};

inline void StoreWeight(AutogradContext* context, const Weight& weight) {
  context->saved_data["held_weight"] = c10::IValue::make_capsule(c10::make_intrusive<HeldWeight>(weight));
}

inline Weight StoredWeight(AutogradContext* context) {
  auto capsule = context->saved_data["held_weight"].toCapsule();
  return static_cast<HeldWeight*>(capsule.get())->weight;
}

}  // namespace rein::nn
