// Products with a weight that no CUDA kernel takes.

#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "common/nn/simd.h"

namespace rein::nn {

// x_TD weight_ED^T (+ bias_E, which may be undefined), [T, E], on any device and in any dtype; at::linear but in fp32 on a CPU,
// where a row has the same bits however many others there are, and a decoding step's few rows take half the time: MKL copies the
// whole weight before it uses it. A pass that `records` for a backward one has at::linear there too: with hundreds of rows MKL is
// the faster one by up to a third.
at::Tensor Linear(const at::Tensor& x_TD, const at::Tensor& weight_ED, const at::Tensor& bias_E = {}, bool records = false);

// How: y [rows, columns] = x [rows, inner] weight [columns, inner]^T, all dense; bias [columns] or null.
struct DenseProduct {
  const float* x;
  const float* weight;
  const float* bias;
  float* y;
  int64_t rows, columns, inner;
};

// Columns [begin, end) of y. An element's bits depend on nothing but its row, its column of the weight and `simd`.
void MultiplyColumns(const DenseProduct& product, int64_t begin, int64_t end, Simd simd);

}  // namespace rein::nn
