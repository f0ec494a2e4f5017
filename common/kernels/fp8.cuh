// 8-bit floats (e4m3): bf16 has all of their numbers.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace rein::kernels {

// The nearest of each, beyond +-448 that; a in the low byte.
__device__ inline uint16_t Fp8PairOf(float a, float b) {
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

// Two numbers, in bytes 0 and 1 of `pair` (2 and 3 with kHigh), as bf16: their bits moved to bf16's places stand for
// numbers 2^120 times too small, down to the ones below the normal numbers. The pattern of NaN (0x7F) gives 480.
template <bool kHigh>
__device__ inline uint32_t Bf16OfFp8(uint32_t four) {
  const uint32_t high_bytes = __byte_perm(four, 0, kHigh ? 0x3424 : 0x1404);
  const uint32_t moved = ((high_bytes & 0x7F007F00u) >> 4) | (high_bytes & 0x80008000u);
  const uint32_t scale = 0x7B807B80u;  // 2^120, twice
  const __nv_bfloat162 out = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&moved), *reinterpret_cast<const __nv_bfloat162*>(&scale));
  return *reinterpret_cast<const uint32_t*>(&out);
}

// Eight numbers.
__device__ inline uint4 Bf16OfFp8(uint2 eight) {
  return make_uint4(Bf16OfFp8<false>(eight.x), Bf16OfFp8<true>(eight.x), Bf16OfFp8<false>(eight.y), Bf16OfFp8<true>(eight.y));
}

}  // namespace rein::kernels
