// Weight is a parameter as a function sees it: a view of the compute arena, and of the gradient arena
// when it is trained.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::nn {

struct Weight {
  at::Tensor value;  // compute dtype
  at::Tensor grad;   // fp32, same shape, accumulated into by backward passes; undefined in inference

  bool defined() const { return value.defined(); }
};

}  // namespace rein::nn
