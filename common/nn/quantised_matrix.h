// A frozen matrix in 8 or 4 bits (QLoRA, arXiv 2305.14314). Products are made with the matrix in the compute format, which
// is unpacked each time: whoever holds equal codes computes with equal numbers.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "common/weights/quantisation.h"

namespace rein::nn {

struct QuantisedMatrix {
  weights::Quantisation format = weights::Quantisation::kNone;
  at::Tensor code;   // uint8, flat: signed bytes, or two numbers in each byte with the first in the high half
  at::Tensor scale;  // fp32, flat: of each row, or of each block
  std::vector<int64_t> shape;  // the last dimension is a row
  at::ScalarType dtype = at::kFloat;  // to compute in

  // One of the matrices of a three-dimensional one.
  QuantisedMatrix At(int64_t index) const;
};

// Code times scale in fp32, rounded to the compute format: the same bits on a CPU and a GPU.
at::Tensor Unpacked(const QuantisedMatrix& matrix);

// Fills code and scale of `matrix` (its shape is that of `from`, fp32 and contiguous, on the same device). A row or block of
// zeros has scale 0; a number that is not finite makes its scale so.
void Quantise(const at::Tensor& from, const QuantisedMatrix& matrix);

}  // namespace rein::nn
