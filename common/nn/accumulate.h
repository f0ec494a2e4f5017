// AccumulateOuter is how a backward pass adds to a weight's gradient.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::nn {

// Adds dy_TE^T x_TD to an fp32 [E, D] gradient, if there is one.
void AccumulateOuter(at::Tensor grad_ED, const at::Tensor& dy_TE, const at::Tensor& x_TD);

}  // namespace rein::nn
