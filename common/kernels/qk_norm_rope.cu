#include "common/kernels/qk_norm_rope.h"

#include <algorithm>

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/fp8.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_overlap.cuh"
#include "common/kernels/launch_status.h"
#include "common/kernels/qk_norm_rope_pairs.cuh"
#include "common/kernels/row_sum.h"
#include "common/kernels/split_heads.h"

namespace rein::kernels {
namespace {

constexpr int kWarps = kQkWarps;

// A lane holds kPairs pairs (i, i + C/2). With an even number of them they stand side by side, two by
// two, so that 4 bytes are read at once; else they are 32 apart.
template <int kHalf>
struct Lane {
  static constexpr int kPairs = (kHalf + 31) / 32;
  static constexpr bool kAdjacent = kHalf % 64 == 0;

  __device__ static int Index(int lane, int n) {
    return kAdjacent ? (n / 2) * 64 + lane * 2 + n % 2 : n * 32 + lane;
  }
  __device__ static bool Live(int lane, int n) { return kAdjacent || Index(lane, n) < kHalf; }

  __device__ static void Load(const bf16* x, int lane, float* low, float* high) {
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      if constexpr (kAdjacent) {
        if (n % 2 == 1) continue;
        const int i = Index(lane, n);
        const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(x + i));
        const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(x + i + kHalf));
        low[n] = a.x, low[n + 1] = a.y, high[n] = b.x, high[n + 1] = b.y;
      } else {
        const int i = Index(lane, n);
        low[n] = Live(lane, n) ? __bfloat162float(x[i]) : 0.0f;
        high[n] = Live(lane, n) ? __bfloat162float(x[i + kHalf]) : 0.0f;
      }
    }
  }
  __device__ static void Store(const float* low, const float* high, int lane, bf16* y) {
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      if constexpr (kAdjacent) {
        if (n % 2 == 1) continue;
        const int i = Index(lane, n);
        *reinterpret_cast<__nv_bfloat162*>(y + i) = __floats2bfloat162_rn(low[n], low[n + 1]);
        *reinterpret_cast<__nv_bfloat162*>(y + i + kHalf) = __floats2bfloat162_rn(high[n], high[n + 1]);
      } else if (Live(lane, n)) {
        y[Index(lane, n)] = __float2bfloat16_rn(low[n]);
        y[Index(lane, n) + kHalf] = __float2bfloat16_rn(high[n]);
      }
    }
  }
  // As Store(), and what that stored rounded once more.
  __device__ static void StoreFp8(const float* low, const float* high, int lane, uint8_t* y) {
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      if constexpr (kAdjacent) {
        if (n % 2 == 1) continue;
        const int i = Index(lane, n);
        *reinterpret_cast<uint16_t*>(y + i) = Fp8PairOf(Rounded(low[n]), Rounded(low[n + 1]));
        *reinterpret_cast<uint16_t*>(y + i + kHalf) = Fp8PairOf(Rounded(high[n]), Rounded(high[n + 1]));
      } else if (Live(lane, n)) {
        const uint16_t pair = Fp8PairOf(Rounded(low[n]), Rounded(high[n]));
        y[Index(lane, n)] = static_cast<uint8_t>(pair & 0xFF);
        y[Index(lane, n) + kHalf] = static_cast<uint8_t>(pair >> 8);
      }
    }
  }
};

template <int kHalf>
__device__ float InverseRms(const float* low, const float* high, float epsilon) {
  float square = 0;
#pragma unroll
  for (int n = 0; n < Lane<kHalf>::kPairs; ++n) {
    square = __fmaf_rn(low[n], low[n], square);
    square = __fmaf_rn(high[n], high[n], square);
  }
  return rsqrtf(WarpSum(square) / (2 * kHalf) + epsilon);
}

// Which head of which token a warp works on: first the q heads, then k, then v.
struct Head {
  int64_t token, head;
};

template <int kHalf>
__global__ void QkNormRopeKernel(QkNormRope r) {
  using L = Lane<kHalf>;
  AwaitLast();
  LetNextBegin();
  const int64_t c = 2 * kHalf;
  const uint32_t per_token = static_cast<uint32_t>(r.heads + 2 * r.kv_heads);
  const uint32_t unit = blockIdx.x * kWarps + threadIdx.x / 32;
  if (unit >= r.tokens * per_token) return;
  const int lane = threadIdx.x % 32;
  const Head at{unit / per_token, unit % per_token};
  const bool is_q = at.head < r.heads, is_v = at.head >= r.heads + r.kv_heads;
  if (is_v && r.v == nullptr) return;
  float low[L::kPairs], high[L::kPairs];
  L::Load(static_cast<const bf16*>(r.qkv) + unit * c, lane, low, high);
  const int64_t row = r.slot != nullptr && !is_q ? r.slot[at.token] : at.token;
  auto store = [&](void* to, int64_t to_head) {
    if (r.fp8 && !is_q) return L::StoreFp8(low, high, lane, static_cast<uint8_t*>(to) + to_head * c);
    L::Store(low, high, lane, static_cast<bf16*>(to) + to_head * c);
  };
  if (is_v) return store(r.v, row * r.kv_heads + at.head - r.heads - r.kv_heads);
  const auto* weight = static_cast<const bf16*>(is_q ? r.q_weight : r.k_weight);
  if (weight != nullptr) {
    const float inverse = InverseRms<kHalf>(low, high, r.epsilon);
    float weight_low[L::kPairs], weight_high[L::kPairs];
    L::Load(weight, lane, weight_low, weight_high);
#pragma unroll
    for (int n = 0; n < L::kPairs; ++n) {
      low[n] = Rounded(Rounded(__fmul_rn(low[n], inverse)) * weight_low[n]);
      high[n] = Rounded(Rounded(__fmul_rn(high[n], inverse)) * weight_high[n]);
    }
  }
  const int64_t turn = at.token * kHalf;
#pragma unroll
  for (int n = 0; n < L::kPairs; ++n) {
    if (!L::Live(lane, n)) continue;
    const float cos = r.cos[turn + L::Index(lane, n)], sin = r.sin[turn + L::Index(lane, n)];
    const float a = low[n], b = high[n];
    low[n] = __fmaf_rn(b, -sin, __fmul_rn(a, cos));
    high[n] = __fmaf_rn(a, sin, __fmul_rn(b, cos));
  }
  is_q ? store(r.q, at.token * r.heads + at.head) : store(r.k, row * r.kv_heads + at.head - r.heads);
}

template <int kHalf>
__global__ void __launch_bounds__(32 * kWarps, 6) QkNormRopeGradientKernel(QkNormRopeGradient g) {
  using L = Lane<kHalf>;
  __shared__ float shared[kWarps][2][2 * kHalf];
  const QkNormRope& r = g.forward;
  const int64_t c = 2 * kHalf, per_token = r.heads + 2 * r.kv_heads;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float sum_low[2][L::kPairs] = {}, sum_high[2][L::kPairs] = {};
  for (int64_t unit = blockIdx.x * static_cast<int64_t>(kWarps) + warp; unit < r.tokens * per_token;
       unit += static_cast<int64_t>(gridDim.x) * kWarps) {
    const Head at{unit / per_token, unit % per_token};
    const bool is_q = at.head < r.heads, is_v = at.head >= r.heads + r.kv_heads;
    const bf16* from =
        is_q   ? static_cast<const bf16*>(g.dq) + (at.token * r.heads + at.head) * c
        : is_v ? static_cast<const bf16*>(g.dv) +
                     (at.token * r.kv_heads + at.head - r.heads - r.kv_heads) * c
               : static_cast<const bf16*>(g.dk) + (at.token * r.kv_heads + at.head - r.heads) * c;
    float low[L::kPairs], high[L::kPairs];
    L::Load(from, lane, low, high);
    bf16* to = static_cast<bf16*>(g.dqkv) + unit * c;
    if (is_v) {
      L::Store(low, high, lane, to);
      continue;
    }
    const int64_t turn = at.token * kHalf;
#pragma unroll
    for (int n = 0; n < L::kPairs; ++n) {
      if (!L::Live(lane, n)) continue;
      const float cos = r.cos[turn + L::Index(lane, n)], sin = r.sin[turn + L::Index(lane, n)];
      const float a = low[n], b = high[n];
      low[n] = a * cos + b * sin;
      high[n] = b * cos - a * sin;
    }
    const auto* weight = static_cast<const bf16*>(is_q ? r.q_weight : r.k_weight);
    if (weight != nullptr) {
      float x_low[L::kPairs], x_high[L::kPairs], weight_low[L::kPairs], weight_high[L::kPairs];
      L::Load(static_cast<const bf16*>(r.qkv) + unit * c, lane, x_low, x_high);
      L::Load(weight, lane, weight_low, weight_high);
      const float inverse = InverseRms<kHalf>(x_low, x_high, r.epsilon);
      float dot = 0;
      const int which = is_q ? 0 : 1;
#pragma unroll
      for (int n = 0; n < L::kPairs; ++n) {
        x_low[n] *= inverse;
        x_high[n] *= inverse;
        sum_low[which][n] += low[n] * x_low[n];
        sum_high[which][n] += high[n] * x_high[n];
        low[n] *= weight_low[n];
        high[n] *= weight_high[n];
        dot += low[n] * x_low[n] + high[n] * x_high[n];
      }
      dot = WarpSum(dot) / c;
#pragma unroll
      for (int n = 0; n < L::kPairs; ++n) {
        low[n] = (low[n] - x_low[n] * dot) * inverse;
        high[n] = (high[n] - x_high[n] * dot) * inverse;
      }
    }
    L::Store(low, high, lane, to);
  }
  if (g.scratch == nullptr) return;
#pragma unroll
  for (int which = 0; which < 2; ++which) {
#pragma unroll
    for (int n = 0; n < L::kPairs; ++n) {
      if (!L::Live(lane, n)) continue;
      shared[warp][which][L::Index(lane, n)] = sum_low[which][n];
      shared[warp][which][L::Index(lane, n) + kHalf] = sum_high[which][n];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * c; i += blockDim.x) {
    float total = 0;
    for (int w = 0; w < kWarps; ++w) total += shared[w][i / c][i % c];
    g.scratch[blockIdx.x * 2 * c + i] = total;
  }
}

// ---- any turn and norm: a lane holds dims lane, lane + 32, ..., and sees the others in shared memory ---------

constexpr int kMostPerLane = 8;

// The other member of dim c's pair, the angle's index and the sign of the sine there.
struct Pair {
  int other, angle;
  float sign;

  __device__ Pair(const QkNormRope& r, int c) {
    const int half = static_cast<int>(r.rotary_dim / 2);
    const bool second = r.interleaved ? c % 2 == 1 : c >= half;
    angle = r.interleaved ? c / 2 : second ? c - half : c;
    other = r.interleaved ? c ^ 1 : second ? angle : c + half;
    sign = second ? 1.0f : -1.0f;
  }
};

__device__ float WeightOf(const QkNormRope& r, const bf16* weight, int c) {
  const float w = __bfloat162float(weight[c]);
  return r.plus_one ? __fadd_rn(w, 1.0f) : w;
}

__global__ void AnyQkNormRopeKernel(QkNormRope r) {
  AwaitLast();
  LetNextBegin();
  __shared__ float rows[kWarps][32 * kMostPerLane];
  const int c = static_cast<int>(r.head_dim);
  const int64_t per_token = r.heads + 2 * r.kv_heads;
  const int64_t unit = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / 32;
  if (unit >= r.tokens * per_token) return;
  const int lane = threadIdx.x % 32;
  float* row = rows[threadIdx.x / 32];
  const Head at{unit / per_token, unit % per_token};
  const bool is_q = at.head < r.heads, is_v = at.head >= r.heads + r.kv_heads;
  if (is_v && r.v == nullptr) return;
  const bf16* from = static_cast<const bf16*>(r.qkv) + unit * c;
  const int64_t place = r.slot != nullptr && !is_q ? r.slot[at.token] : at.token;
  bf16* to = is_q   ? static_cast<bf16*>(r.q) + (at.token * r.heads + at.head) * c
             : is_v ? static_cast<bf16*>(r.v) + (place * r.kv_heads + at.head - r.heads - r.kv_heads) * c
                    : static_cast<bf16*>(r.k) + (place * r.kv_heads + at.head - r.heads) * c;
  if (is_v) {
    for (int i = lane; i < c; i += 32) to[i] = from[i];
    return;
  }
  const auto* weight = static_cast<const bf16*>(is_q ? r.q_weight : r.k_weight);
  float inverse = 1;
  if (weight != nullptr) {
    float square = 0;
    for (int i = lane; i < c; i += 32) {
      const float x = __bfloat162float(from[i]);
      square = __fmaf_rn(x, x, square);
    }
    inverse = rsqrtf(WarpSum(square) / c + r.epsilon);
  }
  for (int i = lane; i < c; i += 32) {
    float x = __bfloat162float(from[i]);
    if (weight != nullptr) {
      x = __fmul_rn(x, inverse);
      if (!r.plus_one) x = Rounded(x);
      x = Rounded(__fmul_rn(x, WeightOf(r, weight, i)));
    }
    row[i] = x;
  }
  __syncwarp();
  const int64_t turn = at.token * r.rotary_dim / 2;
  for (int i = lane; i < c; i += 32) {
    float y = row[i];
    if (i < r.rotary_dim) {
      const Pair pair(r, i);
      y = __fmaf_rn(row[pair.other], pair.sign * r.sin[turn + pair.angle], __fmul_rn(y, r.cos[turn + pair.angle]));
    }
    to[i] = __float2bfloat16_rn(y);
  }
}

__global__ void AnyQkNormRopeGradientKernel(QkNormRopeGradient g) {
  __shared__ float rows[kWarps][2][32 * kMostPerLane];  // of each warp; at the end its sums for q and k
  const QkNormRope& r = g.forward;
  const int c = static_cast<int>(r.head_dim);
  const int64_t per_token = r.heads + 2 * r.kv_heads;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* row = rows[warp][0];
  float sums[2][kMostPerLane] = {};
  for (int64_t unit = blockIdx.x * static_cast<int64_t>(kWarps) + warp; unit < r.tokens * per_token;
       unit += static_cast<int64_t>(gridDim.x) * kWarps) {
    const Head at{unit / per_token, unit % per_token};
    const bool is_q = at.head < r.heads, is_v = at.head >= r.heads + r.kv_heads;
    const bf16* from =
        is_q   ? static_cast<const bf16*>(g.dq) + (at.token * r.heads + at.head) * c
        : is_v ? static_cast<const bf16*>(g.dv) +
                     (at.token * r.kv_heads + at.head - r.heads - r.kv_heads) * c
               : static_cast<const bf16*>(g.dk) + (at.token * r.kv_heads + at.head - r.heads) * c;
    bf16* to = static_cast<bf16*>(g.dqkv) + unit * c;
    if (is_v) {
      for (int i = lane; i < c; i += 32) to[i] = from[i];
      continue;
    }
    const bf16* in = static_cast<const bf16*>(r.qkv) + unit * c;
    const auto* weight = static_cast<const bf16*>(is_q ? r.q_weight : r.k_weight);
    const int64_t turn = at.token * r.rotary_dim / 2;
    __syncwarp();  // whoever still reads the last row
    for (int i = lane; i < c; i += 32) row[i] = __bfloat162float(from[i]);
    __syncwarp();
    float dz[kMostPerLane], normed[kMostPerLane], square = 0;
#pragma unroll
    for (int n = 0; n < kMostPerLane; ++n) {
      const int i = lane + 32 * n;
      dz[n] = normed[n] = 0;
      if (i >= c) continue;
      dz[n] = row[i];
      if (i < r.rotary_dim) {  // turned back
        const Pair pair(r, i);
        dz[n] = row[i] * r.cos[turn + pair.angle] - pair.sign * row[pair.other] * r.sin[turn + pair.angle];
      }
      normed[n] = __bfloat162float(in[i]);
      square = __fmaf_rn(normed[n], normed[n], square);
    }
    if (weight != nullptr) {
      const float inverse = rsqrtf(WarpSum(square) / c + r.epsilon);
      float dot = 0;
#pragma unroll
      for (int n = 0; n < kMostPerLane; ++n) {
        const int i = lane + 32 * n;
        if (i >= c) continue;
        normed[n] *= inverse;
        // Both are written, so that no register is chosen by a variable.
        sums[0][n] += is_q ? dz[n] * normed[n] : 0.0f;
        sums[1][n] += is_q ? 0.0f : dz[n] * normed[n];
        dz[n] *= WeightOf(r, weight, i);
        dot += dz[n] * normed[n];
      }
      dot = WarpSum(dot) / c;
#pragma unroll
      for (int n = 0; n < kMostPerLane; ++n) dz[n] = (dz[n] - normed[n] * dot) * inverse;
    }
#pragma unroll
    for (int n = 0; n < kMostPerLane; ++n) {
      if (lane + 32 * n < c) to[lane + 32 * n] = __float2bfloat16_rn(dz[n]);
    }
  }
  if (g.scratch == nullptr) return;
  __syncwarp();
#pragma unroll
  for (int n = 0; n < kMostPerLane; ++n) {
    rows[warp][0][lane + 32 * n] = sums[0][n];
    rows[warp][1][lane + 32 * n] = sums[1][n];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * c; i += blockDim.x) {
    float total = 0;
    for (int w = 0; w < kWarps; ++w) total += rows[w][i / c][i % c];
    g.scratch[blockIdx.x * 2 * c + i] = total;
  }
}

// Whether the kernels of pairs (i, i + C/2) take it.
bool TurnsHalves(const QkNormRope& run) {
  return run.rotary_dim == run.head_dim && run.head_dim % 32 == 0 && !run.interleaved && !run.plus_one;
}

// Calls `body` with the number of pairs of a head as a compile-time constant.
template <typename Body>
absl::Status WithHalf(int64_t head_dim, Body body) {
  switch (head_dim) {
    case 32: return body(std::integral_constant<int, 16>());
    case 64: return body(std::integral_constant<int, 32>());
    case 96: return body(std::integral_constant<int, 48>());
    case 128: return body(std::integral_constant<int, 64>());
    case 160: return body(std::integral_constant<int, 80>());
    case 192: return body(std::integral_constant<int, 96>());
    case 224: return body(std::integral_constant<int, 112>());
    case 256: return body(std::integral_constant<int, 128>());
  }
  return absl::InvalidArgumentError(
      absl::StrCat("QkNormRope: head_dim is ", head_dim, ", want a multiple of 32 up to 256"));
}

}  // namespace

absl::Status RunQkNormRope(const QkNormRope& run, void* stream) {
  if (run.tokens == 0) return absl::OkStatus();
  const int64_t units = run.tokens * (run.heads + 2 * run.kv_heads);
  const dim3 blocks(static_cast<unsigned>((units + kWarps - 1) / kWarps));
  if (OnlySplits(run)) return SplitHeads(run, stream);
  if (!TurnsHalves(run)) {
    LaunchOverlapping(AnyQkNormRopeKernel, blocks, 32 * kWarps, 0, stream, run);
    return LaunchStatus("QkNormRope");
  }
  return WithHalf(run.head_dim, [&](auto half) {
    LaunchOverlapping(QkNormRopeKernel<half.value>, blocks, 32 * kWarps, 0, stream, run);
    return LaunchStatus("QkNormRope");
  });
}

absl::Status RunQkNormRopeGradient(const QkNormRopeGradient& run, void* stream) {
  const QkNormRope& forward = run.forward;
  if (forward.tokens == 0) return absl::OkStatus();
  const int64_t units = forward.tokens * (forward.heads + 2 * forward.kv_heads);
  auto blocks = static_cast<unsigned>(std::min((units + kWarps - 1) / kWarps, kQkGradientBlocks));
  auto* on = static_cast<cudaStream_t>(stream);
  auto add_up = [&] {
    const int64_t c = forward.head_dim;
    if (run.scratch != nullptr) AddRows(run.scratch, blocks, 2 * c, c, run.dq_weight, run.dk_weight, on);
    return LaunchStatus("QkNormRopeGradient");
  };
  if (OnlySplits(forward)) return JoinHeads(run, stream);
  if (!TurnsHalves(forward)) {
    AnyQkNormRopeGradientKernel<<<blocks, 32 * kWarps, 0, on>>>(run);
    return add_up();
  }
  return WithHalf(forward.head_dim, [&](auto half) {
    auto* kernel = QkNormRopeGradientKernel<half.value>;
    if constexpr (half.value == 32 || half.value == 64 || half.value == 128) {
      if ((forward.q_weight == nullptr) == (forward.k_weight == nullptr)) {
        kernel = FourPairsGradientKernel<half.value>;
        const int at_once = kBlocksOfProcessor * DeviceAttribute(cudaDevAttrMultiProcessorCount);
        blocks = std::min(blocks, static_cast<unsigned>(at_once));
      }
    }
    kernel<<<blocks, 32 * kWarps, 0, on>>>(run);
    return add_up();
  });
}

}  // namespace rein::kernels
