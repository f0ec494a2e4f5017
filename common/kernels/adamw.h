// AdamW (arXiv 1711.05101) on the GPU over a flat range, with the bf16 copy of the weights written in the
// same pass, moments in fp32 or bf16; and the sum of squares that gradient clipping wants. trainer/optim/adamw.h has the formula.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

struct AdamWRange {
  const float* gradient = nullptr;  // all of `size`, device memory of the current device
  float* weight = nullptr;
  void* moment1 = nullptr;  // fp32, or bf16 with `narrow`
  void* moment2 = nullptr;
  bool narrow = false;
  uint64_t rounding_key = 0;  // narrow moments are rounded by chance, with a draw for each element
  int64_t first_index = 0;    // of the first element, in these draws
  void* rounded = nullptr;  // bf16 or null: the weight, rounded
  int64_t size = 0;
  float beta1 = 0, beta2 = 0, one_minus_beta1 = 0, one_minus_beta2 = 0;
  float step_size = 0;        // learning rate / (1 - beta1^n)
  float root_correction = 0;  // 1 / sqrt(1 - beta2^n)
  float epsilon = 0, scale = 1;
  float keep = 1;  // 1 - learning rate * weight decay
};

// Returns after the launch; INTERNAL when it was refused, UNIMPLEMENTED in a build without CUDA.
absl::Status RunAdamW(const AdamWRange& range, void* stream);

// sum x^2 in double, in an order that depends on `size` alone, into *sum (device). `partial` is device
// memory for kSquaredNormBlocks doubles.
inline constexpr int kSquaredNormBlocks = 1056;
absl::Status SquaredNorm(const float* x, int64_t size, double* partial, double* sum, void* stream);

}  // namespace rein::kernels
