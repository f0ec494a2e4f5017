// Rows of bf16 on their way to experts and back, on the GPU, and the choice of experts.
//
// T tokens, each with K chosen experts: N = T K choices, sorted by expert. token_N says whose row stands at a place of the
// sorted order, place_TK where a choice stands there. Sums are fp32 and in order of k: a token's result does not depend
// on the others, and equal inputs give equal bits. Device memory of the current device; `columns` is a multiple of 8.
// Each returns after the launch; INTERNAL when it was refused, UNIMPLEMENTED in a build without CUDA.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

// out[n] = x[token_N[n]] * scale_N[n]; scale_N may be null: 1. x bf16 [T, columns], out bf16 [N, columns].
absl::Status SpreadRows(const void* x, const int64_t* token_N, const float* scale_N, void* out, int64_t rows,
                        int64_t columns, void* stream);

// out[t] = sum over k of y[place_TK[t, k]] * weight_TK[t, k]; weight_TK may be null: 1. y bf16 [N, columns], out
// bf16 [T, columns].
absl::Status CombineRows(const void* y, const int64_t* place_TK, const float* weight_TK, void* out, int64_t tokens,
                         int64_t chosen, int64_t columns, void* stream);

// dot[n] = x[token_N[n]] . y[n], fp32. x bf16 [T, columns], y bf16 [N, columns].
absl::Status DotRows(const void* x, const int64_t* token_N, const void* y, float* dot, int64_t rows, int64_t columns,
                     void* stream);

// The `count` largest of each row of fp32 [rows, columns], largest first, the lower index among equals; NaN is below all.
// index int64 [rows, count]; columns at most 1024.
inline constexpr int64_t kMostTopColumns = 1024;
absl::Status TopColumns(const float* values, int64_t* index, int64_t rows, int64_t columns, int64_t count, void* stream);

}  // namespace rein::kernels
