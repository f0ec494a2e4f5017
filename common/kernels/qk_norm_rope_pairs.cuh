// The gradient of norm and turn where a lane holds four pairs (i, i + C/2): several heads of a token at once; only for
// qk_norm_rope.cu.

#pragma once

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/qk_norm_rope.h"

namespace rein::kernels {

inline constexpr int kQkWarps = 8;            // of a block
inline constexpr int kBlocksOfProcessor = 3;  // of the kernel here, at one time

// One lane's share of a head.
template <int kHalf>
struct FourPairs {
  static constexpr int kLanes = kHalf / 4;  // of a head
  float low[4] = {}, high[4] = {};

  __device__ static void LoadHalf(const bf16* x, float (&to)[4]) {
    const uint2 four = *reinterpret_cast<const uint2*>(x);
    const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.x)),
                 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.y));
    to[0] = a.x, to[1] = a.y, to[2] = b.x, to[3] = b.y;
  }
  __device__ static void StoreHalf(const float (&x)[4], bf16* to) {
    const __nv_bfloat162 a = __floats2bfloat162_rn(x[0], x[1]), b = __floats2bfloat162_rn(x[2], x[3]);
    *reinterpret_cast<uint2*>(to) = make_uint2(*reinterpret_cast<const uint32_t*>(&a), *reinterpret_cast<const uint32_t*>(&b));
  }
  __device__ void Load(const bf16* own) {
    LoadHalf(own, low);
    LoadHalf(own + kHalf, high);
  }
  __device__ void Store(bf16* own) const {
    StoreHalf(low, own);
    StoreHalf(high, own + kHalf);
  }
  __device__ void TurnBack(const float (&cos)[4], const float (&sin)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float a = low[i], b = high[i];
      low[i] = a * cos[i] + b * sin[i];
      high[i] = b * cos[i] - a * sin[i];
    }
  }
  __device__ static float SumOfHead(float x) {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(~0u, x, distance);
    return x;
  }
  // This gradient goes through the norm of `x`; `of_weight` becomes the share of the weight's. By whole warps.
  __device__ void ThroughNorm(FourPairs x, const FourPairs& weight, float epsilon, FourPairs& of_weight) {
    float square = 0, dot = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) square += x.low[i] * x.low[i] + x.high[i] * x.high[i];
    const float inverse = rsqrtf(SumOfHead(square) / (2 * kHalf) + epsilon);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x.low[i] *= inverse;
      x.high[i] *= inverse;
      of_weight.low[i] = low[i] * x.low[i];
      of_weight.high[i] = high[i] * x.high[i];
      dot += of_weight.low[i] * weight.low[i] + of_weight.high[i] * weight.high[i];
    }
    dot = SumOfHead(dot) / (2 * kHalf);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      low[i] = (low[i] * weight.low[i] - x.low[i] * dot) * inverse;
      high[i] = (high[i] * weight.high[i] - x.high[i] * dot) * inverse;
    }
  }
  __device__ void AddIf(bool take, const FourPairs& other) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      low[i] += take ? other.low[i] : 0.0f;
      high[i] += take ? other.high[i] : 0.0f;
    }
  }
  // The sums over the heads that the warp holds, in the lanes of the first one.
  __device__ void AddHeads() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int distance = kLanes; distance < 32; distance *= 2) {
        low[i] += __shfl_xor_sync(~0u, low[i], distance);
        high[i] += __shfl_xor_sync(~0u, high[i], distance);
      }
    }
  }
};

// A warp takes kHeadsOfUnit heads of a token, whose angles it loads once. Both of q and k are normed, or neither.
template <int kHalf>
__global__ void __launch_bounds__(32 * kQkWarps, kBlocksOfProcessor) FourPairsGradientKernel(QkNormRopeGradient g) {
  constexpr int kHeadsOfUnit = 8, kLanes = FourPairs<kHalf>::kLanes, c = 2 * kHalf;
  __shared__ float shared[kQkWarps][2][c];
  const QkNormRope& r = g.forward;
  const auto heads = static_cast<uint32_t>(r.heads), kv_heads = static_cast<uint32_t>(r.kv_heads), per_token = heads + 2 * kv_heads;
  const uint32_t parts = (per_token + kHeadsOfUnit - 1) / kHeadsOfUnit, units = static_cast<uint32_t>(r.tokens) * parts;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, own = lane % kLanes * 4;
  FourPairs<kHalf> sum[2];  // of q's and k's weights
  for (uint32_t unit = blockIdx.x * kQkWarps + warp; unit < units; unit += gridDim.x * kQkWarps) {
    const uint32_t token = unit / parts, first = unit % parts * kHeadsOfUnit;
    float cos[4], sin[4];
    *reinterpret_cast<float4*>(cos) = *reinterpret_cast<const float4*>(r.cos + int64_t{token} * kHalf + own);
    *reinterpret_cast<float4*>(sin) = *reinterpret_cast<const float4*>(r.sin + int64_t{token} * kHalf + own);
#pragma unroll 2
    for (uint32_t n = 0; n < kHeadsOfUnit; n += 32 / kLanes) {
      const uint32_t head = first + n + lane / kLanes;
      const bool live = head < per_token, is_q = head < heads, is_v = head >= heads + kv_heads;
      const int64_t joint = (int64_t{token} * per_token + head) * c + own;
      FourPairs<kHalf> d;
      if (live) {
        const void* from = is_q ? g.dq : is_v ? g.dv : g.dk;
        const int64_t at = is_q ? int64_t{token} * heads + head : int64_t{token} * kv_heads + head - heads - (is_v ? kv_heads : 0);
        d.Load(static_cast<const bf16*>(from) + at * c + own);
      }
      if (!is_v) d.TurnBack(cos, sin);
      if (r.q_weight != nullptr) {
        FourPairs<kHalf> x, weight, through = d, of_weight;
        if (live && !is_v) x.Load(static_cast<const bf16*>(r.qkv) + joint);
        weight.Load(static_cast<const bf16*>(is_q ? r.q_weight : r.k_weight) + own);
        through.ThroughNorm(x, weight, r.epsilon, of_weight);
        sum[0].AddIf(is_q, of_weight);
        sum[1].AddIf(!is_q && !is_v, of_weight);
        if (!is_v) d = through;
      }
      if (live) d.Store(static_cast<bf16*>(g.dqkv) + joint);
    }
  }
  if (g.scratch == nullptr) return;
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    sum[which].AddHeads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (lane >= kLanes) continue;
      shared[warp][which][own + i] = sum[which].low[i];
      shared[warp][which][kHalf + own + i] = sum[which].high[i];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * c; i += blockDim.x) {
    float total = 0;
    for (int w = 0; w < kQkWarps; ++w) total += shared[w][i / c][i % c];
    g.scratch[blockIdx.x * 2 * c + i] = total;
  }
}

}  // namespace rein::kernels
