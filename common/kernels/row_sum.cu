#include "common/kernels/row_sum.h"

#include <cuda_runtime.h>

namespace rein::kernels {
namespace {

constexpr int kColumns = 32, kGroups = 16;

// A block sums kColumns columns: group g the rows g, g + kGroups, ..., then the groups in order.
__global__ void AddRowsKernel(const float* rows, int64_t count, int64_t columns, int64_t split, float* low,
                              float* high) {
  __shared__ float sums[kGroups][kColumns];
  const int64_t column = blockIdx.x * static_cast<int64_t>(kColumns) + threadIdx.x;
  float sum = 0;
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = threadIdx.y; row < count; row += kGroups) sum += rows[row * columns + column];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int g = 1; g < kGroups; ++g) sum += sums[g][threadIdx.x];
  float* to = column < split ? low : high;
  if (to != nullptr) to[column < split ? column : column - split] += sum;
}

}  // namespace

void AddRows(const float* rows, int64_t count, int64_t columns, int64_t split, float* low, float* high,
             void* stream) {
  AddRowsKernel<<<static_cast<unsigned>((columns + kColumns - 1) / kColumns), dim3(kColumns, kGroups), 0,
                  static_cast<cudaStream_t>(stream)>>>(rows, count, columns, split, low, high);
}

}  // namespace rein::kernels
