#include "common/kernels/gated_silu.h"

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 256;

__device__ float Sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// Eight columns of one row for each thread: `at` among the T * F outputs, `gate` where its gate stands.
struct Place {
  int64_t at, gate;
  bool live;
};

__device__ Place Find(int64_t rows, int64_t columns) {
  const int64_t at = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * 8;
  const int64_t row = at / columns;
  return {at, row * 2 * columns + at % columns, row < rows};
}

__global__ void GatedSiluKernel(const bf16* gate_up, bf16* y, int64_t rows, int64_t columns) {
  const Place place = Find(rows, columns);
  if (!place.live) return;
  float gate[8], up[8];
  Load8(gate_up + place.gate, gate);
  Load8(gate_up + place.gate + columns, up);
#pragma unroll
  for (int i = 0; i < 8; ++i) gate[i] = Rounded(gate[i] * Sigmoid(gate[i])) * up[i];
  Store8(gate, y + place.at);
}

__global__ void GatedSiluGradientKernel(const bf16* gate_up, const bf16* dy, bf16* dgate_up,
                                        int64_t rows, int64_t columns) {
  const Place place = Find(rows, columns);
  if (!place.live) return;
  float gate[8], up[8], d[8];
  Load8(gate_up + place.gate, gate);
  Load8(gate_up + place.gate + columns, up);
  Load8(dy + place.at, d);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float sigmoid = Sigmoid(gate[i]), silu = Rounded(gate[i] * sigmoid);
    gate[i] = d[i] * up[i] * sigmoid * (1.0f + gate[i] * (1.0f - sigmoid));
    up[i] = d[i] * silu;
  }
  Store8(gate, dgate_up + place.gate);
  Store8(up, dgate_up + place.gate + columns);
}

unsigned Blocks(int64_t rows, int64_t columns) {
  return static_cast<unsigned>((rows * columns / 8 + kThreads - 1) / kThreads);
}

}  // namespace

absl::Status GatedSilu(const void* gate_up, void* y, int64_t rows, int64_t columns, void* stream) {
  if (rows == 0) return absl::OkStatus();
  GatedSiluKernel<<<Blocks(rows, columns), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const bf16*>(gate_up), static_cast<bf16*>(y), rows, columns);
  return LaunchStatus("GatedSilu");
}

absl::Status GatedSiluGradient(const void* gate_up, const void* dy, void* dgate_up, int64_t rows,
                               int64_t columns, void* stream) {
  if (rows == 0) return absl::OkStatus();
  GatedSiluGradientKernel<<<Blocks(rows, columns), kThreads, 0,
                            static_cast<cudaStream_t>(stream)>>>(
      static_cast<const bf16*>(gate_up), static_cast<const bf16*>(dy),
      static_cast<bf16*>(dgate_up), rows, columns);
  return LaunchStatus("GatedSiluGradient");
}

}  // namespace rein::kernels
