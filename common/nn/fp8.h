// Keys and values as 8-bit floats: e4m3 (arXiv 2209.05433), scale 1, the nearest of each number, beyond +-448 that; infinities
// too. NaN stays NaN, here and in the pages of a generator. Its kernels, which move a number's bits without a look at them, read
// the pattern of NaN as 480 (common/kernels/fp8.cuh): a generator goes on behind a token whose key is NaN, and the trainer, which
// rounds by these functions, refuses the update and names the first token whose log-prob is not finite.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::nn {

// In kFloat8_e4m3fn.
at::Tensor ToFp8(const at::Tensor& x);

// The same numbers in the dtype of x; the gradient passes as if nothing were rounded.
at::Tensor RoundToFp8(const at::Tensor& x);

}  // namespace rein::nn
