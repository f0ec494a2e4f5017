#include "common/kernels/norm.h"

#include <algorithm>

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_status.h"
#include "common/kernels/row_sum.h"

namespace rein::kernels {
namespace {

// A thread holds eight columns.
int Threads(int64_t columns) { return static_cast<int>((columns / 8 + 31) / 32 * 32); }

__global__ void AddRmsNormKernel(AddNorm n) {
  __shared__ float scratch[32];
  const int64_t at = blockIdx.x * n.columns + threadIdx.x * 8;
  const bool live = threadIdx.x * 8 < n.columns;
  float x[8] = {};
  if (live) {
    Load8(static_cast<const bf16*>(n.x) + at, x);
    if (n.delta != nullptr) {
      float delta[8];
      Load8(static_cast<const bf16*>(n.delta) + at, delta);
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = Rounded(x[i] + delta[i]);
      Store8(x, static_cast<bf16*>(n.sum) + at);
    }
  }
  float square = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) square = __fmaf_rn(x[i], x[i], square);
  square = BlockSum(square, scratch);
  const float inverse = rsqrtf(square / n.columns + n.epsilon);
  if (threadIdx.x == 0 && n.inverse != nullptr) n.inverse[blockIdx.x] = inverse;
  if (!live) return;
  float weight[8];
  Load8(static_cast<const bf16*>(n.weight) + threadIdx.x * 8, weight);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = Rounded(__fmul_rn(x[i], inverse)) * weight[i];
  Store8(x, static_cast<bf16*>(n.y) + at);
}

// A block walks over rows blockIdx.x, blockIdx.x + gridDim.x, ... and keeps its share of dweight.
__global__ void AddRmsNormGradientKernel(AddNormGradient g) {
  __shared__ float scratch[32];
  const bool live = threadIdx.x * 8 < g.columns;
  float weight[8] = {}, dweight[8] = {};
  if (live) Load8(static_cast<const bf16*>(g.weight) + threadIdx.x * 8, weight);
  for (int64_t row = blockIdx.x; row < g.rows; row += gridDim.x) {
    const int64_t at = row * g.columns + threadIdx.x * 8;
    const float inverse = g.inverse[row];
    float normed[8] = {}, dy[8] = {}, dx[8] = {};
    float dot = 0;
    if (live) {
      Load8(static_cast<const bf16*>(g.sum) + at, normed);
      Load8(static_cast<const bf16*>(g.dy) + at, dy);
      if (g.dsum != nullptr) Load8(static_cast<const bf16*>(g.dsum) + at, dx);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      normed[i] *= inverse;
      dweight[i] += dy[i] * normed[i];
      dy[i] *= weight[i];
      dot += dy[i] * normed[i];
    }
    dot = BlockSum(dot, scratch) / g.columns;
    if (!live) continue;
#pragma unroll
    for (int i = 0; i < 8; ++i) dx[i] += (dy[i] - normed[i] * dot) * inverse;
    Store8(dx, static_cast<bf16*>(g.dx) + at);
  }
  if (g.dweight == nullptr || !live) return;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    g.scratch[blockIdx.x * g.columns + threadIdx.x * 8 + i] = dweight[i];
  }
}

}  // namespace

absl::Status AddRmsNorm(const AddNorm& norm, void* stream) {
  if (norm.rows == 0) return absl::OkStatus();
  AddRmsNormKernel<<<static_cast<unsigned>(norm.rows), Threads(norm.columns), 0,
                     static_cast<cudaStream_t>(stream)>>>(norm);
  return LaunchStatus("AddRmsNorm");
}

absl::Status AddRmsNormGradient(const AddNormGradient& gradient, void* stream) {
  if (gradient.rows == 0) return absl::OkStatus();
  const auto blocks = static_cast<unsigned>(std::min(gradient.rows, kNormGradientBlocks));
  auto* on = static_cast<cudaStream_t>(stream);
  AddRmsNormGradientKernel<<<blocks, Threads(gradient.columns), 0, on>>>(gradient);
  if (gradient.dweight != nullptr) {
    AddRows(gradient.scratch, blocks, gradient.columns, gradient.columns, gradient.dweight, nullptr, on);
  }
  return LaunchStatus("AddRmsNormGradient");
}

}  // namespace rein::kernels
