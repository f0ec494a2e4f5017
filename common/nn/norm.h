// The norms of decoders, over the last dimension. bf16 on a GPU runs the kernels of kernels/norm.h; everything else the
// same formulas by LibTorch's operations. Gradients of weights are added, in fp32, to Weight::grad.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/kernels/norm.h"
#include "common/nn/weight.h"

namespace rein::nn {

using kernels::NormKind;

struct NormWeights {
  Weight weight, bias;
};

at::Tensor Norm(const at::Tensor& x, NormKind kind, const NormWeights& weights, double eps);
at::Tensor RmsNorm(const at::Tensor& x, const Weight& weight_D, double eps);

struct SumAndNorm {
  at::Tensor sum;   // x + delta
  at::Tensor norm;  // of the sum
};
// The residual sum and its norm; delta may be undefined: zeros.
SumAndNorm AddNorm(const at::Tensor& x, const at::Tensor& delta, NormKind kind,
                   const NormWeights& weights, double eps);

}  // namespace rein::nn
