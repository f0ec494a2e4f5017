#include "common/kernels/norm.h"

#include <algorithm>
#include <type_traits>

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_overlap.cuh"
#include "common/kernels/launch_status.h"
#include "common/kernels/row_sum.h"

namespace rein::kernels {
namespace {

// A thread holds eight columns.
int Threads(int64_t columns) { return static_cast<int>((columns / 8 + 31) / 32 * 32); }

// Rows that a block leaves in the scratch: the gradient of the weight, and of the bias.
__host__ __device__ constexpr int64_t Sums(NormKind kind) { return kind == NormKind::kLayer ? 2 : 1; }

// Eight weights of a kind, as numbers to be multiplied by.
template <NormKind kKind>
__device__ void LoadWeight(const void* weight, float (&to)[8]) {
  if (kKind == NormKind::kLayer && weight == nullptr) {
#pragma unroll
    for (float& w : to) w = 1;
    return;
  }
  Load8(static_cast<const bf16*>(weight) + threadIdx.x * 8, to);
  if constexpr (kKind == NormKind::kRmsPlusOne) {
#pragma unroll
    for (float& w : to) w = __fadd_rn(w, 1.0f);
  }
}

template <NormKind kKind>
__global__ void AddNormKernel(AddNorm n) {
  __shared__ float scratch[32];
  AwaitLast();
  LetNextBegin();
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
  if constexpr (kKind == NormKind::kLayer) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) total = __fadd_rn(total, x[i]);
    const float mean = BlockSum(total, scratch) / n.columns;
    if (threadIdx.x == 0 && n.mean != nullptr) n.mean[blockIdx.x] = mean;
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = live ? __fsub_rn(x[i], mean) : 0.0f;
  }
  float square = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) square = __fmaf_rn(x[i], x[i], square);
  square = BlockSum(square, scratch);
  const float inverse = rsqrtf(square / n.columns + n.epsilon);
  if (threadIdx.x == 0 && n.inverse != nullptr) n.inverse[blockIdx.x] = inverse;
  if (!live) return;
  float weight[8], bias[8] = {};
  LoadWeight<kKind>(n.weight, weight);
  if (kKind == NormKind::kLayer && n.bias != nullptr) Load8(static_cast<const bf16*>(n.bias) + threadIdx.x * 8, bias);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    x[i] = __fmul_rn(x[i], inverse);
    if constexpr (kKind == NormKind::kRms) x[i] = Rounded(x[i]);
    x[i] = kKind == NormKind::kLayer ? __fmaf_rn(x[i], weight[i], bias[i]) : __fmul_rn(x[i], weight[i]);
  }
  Store8(x, static_cast<bf16*>(n.y) + at);
}

// A block walks over rows blockIdx.x, blockIdx.x + gridDim.x, ... and keeps its share of dweight and dbias.
template <NormKind kKind>
__global__ void __launch_bounds__(1024) AddNormGradientKernel(AddNormGradient g) {
  __shared__ float scratch[32];
  const bool live = threadIdx.x * 8 < g.columns;
  float weight[8] = {}, dweight[8] = {}, dbias[8] = {};
  if (live) LoadWeight<kKind>(g.weight, weight);
  for (int64_t row = blockIdx.x; row < g.rows; row += gridDim.x) {
    const int64_t at = row * g.columns + threadIdx.x * 8;
    const float inverse = g.inverse[row];
    float normed[8] = {}, dy[8] = {}, dx[8] = {};
    float dot = 0, total = 0;
    if (live) {
      Load8(static_cast<const bf16*>(g.sum) + at, normed);
      Load8(static_cast<const bf16*>(g.dy) + at, dy);
      if (g.dsum != nullptr) Load8(static_cast<const bf16*>(g.dsum) + at, dx);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (kKind == NormKind::kLayer && live) normed[i] -= g.mean[row];
      normed[i] *= inverse;
      dweight[i] += dy[i] * normed[i];
      dbias[i] += dy[i];
      dy[i] *= weight[i];
      dot += dy[i] * normed[i];
      total += dy[i];
    }
    dot = BlockSum(dot, scratch) / g.columns;
    if constexpr (kKind == NormKind::kLayer) total = BlockSum(total, scratch) / g.columns;
    if (!live) continue;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float along = kKind == NormKind::kLayer ? normed[i] * dot + total : normed[i] * dot;
      dx[i] += (dy[i] - along) * inverse;
    }
    Store8(dx, static_cast<bf16*>(g.dx) + at);
  }
  if (g.scratch == nullptr || !live) return;
  float* to = g.scratch + blockIdx.x * Sums(kKind) * g.columns + threadIdx.x * 8;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    to[i] = dweight[i];
    if constexpr (kKind == NormKind::kLayer) to[g.columns + i] = dbias[i];
  }
}

// Calls `body` with the kind as a compile-time constant.
template <typename Body>
absl::Status WithKind(NormKind kind, Body body) {
  switch (kind) {
    case NormKind::kRms: return body(std::integral_constant<NormKind, NormKind::kRms>());
    case NormKind::kRmsPlusOne: return body(std::integral_constant<NormKind, NormKind::kRmsPlusOne>());
    case NormKind::kLayer: break;
  }
  return body(std::integral_constant<NormKind, NormKind::kLayer>());
}

}  // namespace

absl::Status RunAddNorm(const AddNorm& norm, void* stream) {
  if (norm.rows == 0) return absl::OkStatus();
  return WithKind(norm.kind, [&](auto kind) {
    LaunchOverlapping(AddNormKernel<kind.value>, dim3(static_cast<unsigned>(norm.rows)), Threads(norm.columns), 0, stream, norm);
    return LaunchStatus("AddNorm");
  });
}

absl::Status RunAddNormGradient(const AddNormGradient& gradient, void* stream) {
  if (gradient.rows == 0) return absl::OkStatus();
  const auto blocks = static_cast<unsigned>(std::min(gradient.rows, kNormGradientBlocks));
  auto* on = static_cast<cudaStream_t>(stream);
  return WithKind(gradient.kind, [&](auto kind) {
    AddNormGradientKernel<kind.value><<<blocks, Threads(gradient.columns), 0, on>>>(gradient);
    if (gradient.scratch != nullptr) {
      AddRows(gradient.scratch, blocks, Sums(kind.value) * gradient.columns, gradient.columns, gradient.dweight, gradient.dbias, on);
    }
    return LaunchStatus("AddNormGradient");
  });
}

}  // namespace rein::kernels
