// Rounding of fp32 to bf16 by chance: up or down in proportion to where the number stands between the two, so that what
// is added in many small steps is not lost (arXiv 1502.02551; llmq and llm.c round moments and weights so). The draw
// depends on a key and an index alone. The same function on host and device.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define REIN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define REIN_HOST_DEVICE inline
#endif

namespace rein::kernels {

// 64 random bits (the finalizer of SplitMix64).
REIN_HOST_DEVICE uint64_t RoundingDraw(uint64_t key, uint64_t index) {
  uint64_t x = key + index * 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// The bf16 bits of x; `draw`: 16 random bits. Infinities and NaN stay what they are.
REIN_HOST_DEVICE uint16_t RoundByChance(float x, uint32_t draw) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  const bool finite = (bits & 0x7F800000u) != 0x7F800000u;
  return static_cast<uint16_t>((finite ? bits + (draw & 0xFFFFu) : bits) >> 16);
}

REIN_HOST_DEVICE float FromBf16Bits(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  memcpy(&x, &wide, sizeof(x));
  return x;
}

}  // namespace rein::kernels
