// Between the q/k/v projection and attention: the per-head norm of q and k (where a family has it), the
// rotary turn (arXiv 2104.09864), and the way into the KV pages; bf16 on the GPU.
//
//   z = bf16(bf16(x / sqrt(mean(x^2) + eps)) * weight)   over C, where there are weights, else x
//   y = bf16(z[i] cos - z[j] sin | z[j] cos + z[i] sin)  for the pairs i, j of the first R dims; z beyond
//
// Pairs are (i, i + R/2), or neighbours where interleaved. One warp computes one head of one token, so a token's
// bits do not depend on T. T tokens, H heads, K kv heads, C head dim, R rotated dims; pointers are device memory,
// row-major.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

constexpr bool QkNormRopeTakes(int64_t head_dim) {
  return head_dim > 0 && head_dim % 2 == 0 && head_dim <= 256;
}

struct QkNormRope {
  const void* qkv = nullptr;          // bf16 [T, H + 2K, C]
  const void* q_weight = nullptr;     // bf16 [C] or null
  const void* k_weight = nullptr;     // bf16 [C] or null
  const float* cos = nullptr;         // fp32 [T, R/2]: the angle of each pair of each token
  const float* sin = nullptr;
  void* q = nullptr;                  // bf16 [T, H, C]
  void* k = nullptr;                  // bf16 [T, K, C], or the pages' keys when slot is given
  void* v = nullptr;                  // null, or the pages' values
  const int64_t* slot = nullptr;      // [T]: the row of k and v, counted in [K, C], of each token
  bool fp8 = false;                   // with slot: k and v are fp8 (e4m3), the nearest of each y, beyond +-448 that
  int64_t tokens = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t rotary_dim = 0;  // R, even; 0: nothing is turned
  bool interleaved = false;
  bool plus_one = false;   // the norm is bf16(x / sqrt(mean(x^2) + eps) * (1 + weight))
  float epsilon = 0;
};

// Returns after the launch; INTERNAL when it was refused, UNIMPLEMENTED in a build without CUDA.
absl::Status RunQkNormRope(const QkNormRope& run, void* stream);

struct QkNormRopeGradient {
  QkNormRope forward;        // its outputs are not touched
  const void* dq = nullptr;  // bf16 [T, H, C]
  const void* dk = nullptr;  // bf16 [T, K, C]
  const void* dv = nullptr;  // bf16 [T, K, C]
  void* dqkv = nullptr;      // bf16 [T, H + 2K, C]
  float* dq_weight = nullptr;  // fp32 [C], added to; null: not wanted
  float* dk_weight = nullptr;
  float* scratch = nullptr;    // fp32 [kQkGradientBlocks, 2, C]
};

inline constexpr int64_t kQkGradientBlocks = 1056;

absl::Status RunQkNormRopeGradient(const QkNormRopeGradient& run, void* stream);

}  // namespace rein::kernels
