#include "common/kernels/expert_rows.h"

#include <limits>

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;

__global__ void __launch_bounds__(kThreads)
    SpreadRowsKernel(const bf16* x, const int64_t* token_N, const float* scale_N, bf16* out, int64_t columns) {
  const int64_t n = blockIdx.x;
  const bf16* from = x + token_N[n] * columns;
  const float scale = scale_N == nullptr ? 1.0f : scale_N[n];
  for (int64_t c = threadIdx.x * 8; c < columns; c += kThreads * 8) {
    float row[8];
    Load8(from + c, row);
#pragma unroll
    for (float& v : row) v *= scale;
    Store8(row, out + n * columns + c);
  }
}

__global__ void __launch_bounds__(kThreads) CombineRowsKernel(const bf16* y, const int64_t* place_TK, const float* weight_TK,
                                                             bf16* out, int64_t chosen, int64_t columns) {
  const int64_t t = blockIdx.x;
  for (int64_t c = threadIdx.x * 8; c < columns; c += kThreads * 8) {
    float sum[8] = {};
    for (int64_t k = t * chosen; k < (t + 1) * chosen; ++k) {
      float row[8];
      Load8(y + place_TK[k] * columns + c, row);
      const float weight = weight_TK == nullptr ? 1.0f : weight_TK[k];
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] = fmaf(row[i], weight, sum[i]);
    }
    Store8(sum, out + t * columns + c);
  }
}

// A warp for each row.
__global__ void __launch_bounds__(kThreads)
    DotRowsKernel(const bf16* x, const int64_t* token_N, const bf16* y, float* dot, int64_t rows, int64_t columns) {
  const int64_t n = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / 32;
  if (n >= rows) return;
  const int lane = threadIdx.x % 32;
  float sum = 0;
  for (int64_t c = lane * 8; c < columns; c += 32 * 8) {
    float a[8], b[8];
    Load8(x + token_N[n] * columns + c, a);
    Load8(y + n * columns + c, b);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(a[i], b[i], sum);
  }
  sum = WarpSum(sum);
  if (lane == 0) dot[n] = sum;
}

// A warp for each row; a lane holds every 32nd column, and takes out what was chosen.
__global__ void __launch_bounds__(kThreads)
    TopColumnsKernel(const float* values, int64_t* index, int64_t rows, int64_t columns, int64_t count) {
  constexpr int kHeld = kMostTopColumns / 32;
  const int64_t row = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32;
  float held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t column = lane + 32 * i;
    held[i] = column < columns ? values[row * columns + column] : -INFINITY;
    if (isnan(held[i])) held[i] = -INFINITY;
  }
  uint32_t taken = 0;
  for (int64_t k = 0; k < count; ++k) {
    float best = -INFINITY;
    int at = INT_MAX;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int column = lane + 32 * i;
      if (column >= columns || (taken >> i & 1) != 0) continue;
      if (at == INT_MAX || held[i] > best) best = held[i], at = column;
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(~0u, best, offset);
      const int other_at = __shfl_xor_sync(~0u, at, offset);
      if (other_at != INT_MAX && (at == INT_MAX || other > best || (other == best && other_at < at))) {
        best = other, at = other_at;
      }
    }
    if (at % 32 == lane) taken |= 1u << (at / 32);
    if (lane == 0) index[row * count + k] = at;
  }
}

unsigned WarpBlocks(int64_t rows) { return static_cast<unsigned>((rows + kWarps - 1) / kWarps); }

}  // namespace

absl::Status SpreadRows(const void* x, const int64_t* token_N, const float* scale_N, void* out, int64_t rows,
                        int64_t columns, void* stream) {
  if (rows == 0) return absl::OkStatus();
  SpreadRowsKernel<<<static_cast<unsigned>(rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const bf16*>(x), token_N, scale_N, static_cast<bf16*>(out), columns);
  return LaunchStatus("SpreadRows");
}

absl::Status CombineRows(const void* y, const int64_t* place_TK, const float* weight_TK, void* out, int64_t tokens,
                         int64_t chosen, int64_t columns, void* stream) {
  if (tokens == 0) return absl::OkStatus();
  CombineRowsKernel<<<static_cast<unsigned>(tokens), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const bf16*>(y), place_TK, weight_TK, static_cast<bf16*>(out), chosen, columns);
  return LaunchStatus("CombineRows");
}

absl::Status DotRows(const void* x, const int64_t* token_N, const void* y, float* dot, int64_t rows, int64_t columns,
                     void* stream) {
  if (rows == 0) return absl::OkStatus();
  DotRowsKernel<<<WarpBlocks(rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const bf16*>(x), token_N, static_cast<const bf16*>(y), dot, rows, columns);
  return LaunchStatus("DotRows");
}

absl::Status TopColumns(const float* values, int64_t* index, int64_t rows, int64_t columns, int64_t count, void* stream) {
  if (columns > kMostTopColumns || count > columns) {
    return absl::InvalidArgumentError(absl::StrCat("TopColumns: ", count, " of ", columns, " columns, want at most ",
                                                   kMostTopColumns, " columns and no more than there are"));
  }
  if (rows == 0) return absl::OkStatus();
  TopColumnsKernel<<<WarpBlocks(rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(values, index, rows, columns, count);
  return LaunchStatus("TopColumns");
}

}  // namespace rein::kernels
