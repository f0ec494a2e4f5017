// The norms of decoders with the residual sum in front of them, bf16 on the GPU: sum = bf16(x + delta), and y by kind.
//
// One block reduces one row in an order that depends on D alone: a row's bits do not depend on T.
// T rows, D columns; pointers are device memory of the current device, 16-byte aligned, row-major.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

inline constexpr int64_t kMaxNormColumns = 8192;

enum class NormKind {
  kRms,         // bf16(bf16(x / sqrt(mean(x^2) + eps)) w) (arXiv 1910.07467)
  kRmsPlusOne,  // bf16(x / sqrt(mean(x^2) + eps) (1 + w)): Gemma, Qwen3-Next
  kLayer,       // bf16((x - mean) / sqrt(var + eps) w + b) (arXiv 1607.06450); w and b may be absent: 1 and 0
};

// Whether a row of so many columns is taken: a multiple of 8, at most kMaxNormColumns.
constexpr bool NormTakes(int64_t columns) {
  return columns > 0 && columns % 8 == 0 && columns <= kMaxNormColumns;
}

struct AddNorm {
  const void* x = nullptr;       // bf16 [T, D]
  const void* delta = nullptr;   // bf16 [T, D] or null: nothing is added and no sum written
  const void* weight = nullptr;  // bf16 [D]
  const void* bias = nullptr;    // bf16 [D] or null, of kLayer
  void* sum = nullptr;           // bf16 [T, D]; may be x
  void* y = nullptr;             // bf16 [T, D]
  float* inverse = nullptr;      // fp32 [T] or null: 1 / sqrt(... + eps)
  float* mean = nullptr;         // fp32 [T] or null, of kLayer
  int64_t rows = 0, columns = 0;
  float epsilon = 0;
  NormKind kind = NormKind::kRms;
};

// Returns after the launch; INTERNAL when it was refused, UNIMPLEMENTED in a build without CUDA.
absl::Status RunAddNorm(const AddNorm& norm, void* stream);

struct AddNormGradient {
  const void* sum = nullptr;      // bf16 [T, D], as the forward left it
  const void* weight = nullptr;   // bf16 [D]
  const float* inverse = nullptr; // fp32 [T]
  const float* mean = nullptr;    // fp32 [T], of kLayer
  const void* dy = nullptr;       // bf16 [T, D]
  const void* dsum = nullptr;     // bf16 [T, D] or null: gradient that reaches the sum by its other uses
  void* dx = nullptr;             // bf16 [T, D]: of x and of delta alike; may be dsum
  float* dweight = nullptr;       // fp32 [D], added to; null: not wanted
  float* dbias = nullptr;         // fp32 [D], added to; null: not wanted
  float* scratch = nullptr;       // fp32 [kNormGradientBlocks, 2, D] where either is wanted; [.., D] but for kLayer
  int64_t rows = 0, columns = 0;
  NormKind kind = NormKind::kRms;
};

inline constexpr int64_t kNormGradientBlocks = 1056;

// The sum over rows is taken in an order that depends on T and D alone.
absl::Status RunAddNormGradient(const AddNormGradient& gradient, void* stream);

}  // namespace rein::kernels
