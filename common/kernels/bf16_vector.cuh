// Eight bf16 at a time, and sums over a block in an order that depends on its size alone.

#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace rein::kernels {

using bf16 = __nv_bfloat16;

struct alignas(16) Bf16x8 {
  __nv_bfloat162 pair[4];
};

__device__ inline void Load8(const bf16* from, float* to) {
  const Bf16x8 packed = *reinterpret_cast<const Bf16x8*>(from);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = __bfloat1622float2(packed.pair[i]);
    to[2 * i] = two.x;
    to[2 * i + 1] = two.y;
  }
}

__device__ inline void Store8(const float* from, bf16* to) {
  Bf16x8 packed;
#pragma unroll
  for (int i = 0; i < 4; ++i) packed.pair[i] = __floats2bfloat162_rn(from[2 * i], from[2 * i + 1]);
  *reinterpret_cast<Bf16x8*>(to) = packed;
}

// What a value is after a round trip through bf16.
__device__ inline float Rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

__device__ inline float WarpSum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// The sum over a block, in every thread. `scratch` is shared memory for 32 floats; blockDim.x is a
// multiple of 32.
__device__ inline float BlockSum(float x, float* scratch) {
  x = WarpSum(x);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (warps == 1) return x;
  __syncthreads();  // whoever still reads the last sum
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return WarpSum(lane < warps ? scratch[lane] : 0.0f);
}

}  // namespace rein::kernels
