// The norms of decoders, over the last dimension.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/functions.h"
#include "common/nn/weight.h"

namespace rein::nn {

enum class NormKind {
  kRms,         // x / sqrt(mean(x^2) + eps), cast, times w (arXiv 1910.07467)
  kRmsPlusOne,  // x / sqrt(mean(x^2) + eps) times (1 + w), then cast: Gemma, Qwen3-Next
  kLayer,       // (x - mean) / sqrt(var + eps) times w, plus b (arXiv 1607.06450); both may be absent
};

struct NormWeights {
  Weight weight, bias;
};

at::Tensor Norm(const at::Tensor& x, NormKind kind, const NormWeights& weights, double eps);

// The residual sum x + delta and its norm; delta may be undefined.
SumAndNorm AddNorm(const at::Tensor& x, const at::Tensor& delta, NormKind kind,
                   const NormWeights& weights, double eps);

}  // namespace rein::nn
