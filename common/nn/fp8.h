// Keys and values as 8-bit floats: e4m3 (arXiv 2209.05433), scale 1, the nearest of each number, beyond +-448 that.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::nn {

// In kFloat8_e4m3fn.
at::Tensor ToFp8(const at::Tensor& x);

// The same numbers in the dtype of x; the gradient passes as if nothing were rounded.
at::Tensor RoundToFp8(const at::Tensor& x);

}  // namespace rein::nn
