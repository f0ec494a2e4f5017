// The arithmetic of attention, shared by the kernels of attention.cu so that they agree to the bit: sixteen
// query rows of one warp against one tile of keys, and the sum over chunks.

#pragma once

#include <cmath>

#include "common/kernels/attention.h"
#include "common/kernels/mma.cuh"

namespace rein::kernels {

inline constexpr float kLog2E = 1.44269504088896340736f;

// A row of a tile in shared memory, padded so that eight rows fall into different banks.
template <int kDim>
inline constexpr int kTileStride = kDim + 8;

// 2^n, for whole n <= 0; 0 below the normal numbers, and of NaN.
__device__ inline float PowerOfTwo(float n) {
  constexpr float kWholeInLowBits = 12582912.0f;  // 1.5 2^23: what is added stands in the last bits
  return __int_as_float(__float_as_int(fmaxf(n, -127.0f) + (kWholeInLowBits + 127.0f)) << 23);
}

__device__ inline float PowerOfTwoOf(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The rows l / 4 and l / 4 + 8 of a warp's sixteen, for the lane l: what one chunk has summed so far.
template <int kDim>
struct ChunkState {
  float max[2];             // whole numbers: scores are below 2^max; -inf before the first key
  float sum[2];             // of this lane's columns
  float out[kDim / 8][4];   // mma layout

  __device__ void Reset() {
#pragma unroll
    for (int r = 0; r < 2; ++r) max[r] = -INFINITY, sum[r] = 0;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] = 0;
    }
  }
};

// 1 / x, to within an ulp.
__device__ inline float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A ScoreRule in units of log 2. Every step is rounded by itself, so that kernels agree.
struct ScoreTerms {
  bool bends = false;
  float scale_log2, tanh_scale = 0, cap_log2 = 0;  // tanh_scale 0: no cap

  __device__ ScoreTerms(const ScoreRule& rule, float scale) : bends(rule.softcap > 0 || rule.alibi != nullptr) {
    scale_log2 = scale * kLog2E;
    if (rule.softcap > 0) {
      tanh_scale = __fdiv_rn(2 * scale_log2, rule.softcap);
      cap_log2 = rule.softcap * kLog2E;
    }
  }
  // tanh of the score over its cap: (e^2x - 1) / (e^2x + 1).
  __device__ float Tanh(float dot) const {
    return __fmaf_rn(-2.0f, Reciprocal(__fadd_rn(1.0f, PowerOfTwoOf(__fmul_rn(dot, tanh_scale)))), 1.0f);
  }
  // The exponent of 2 that q.k becomes, before the largest is taken off; distance: key - query.
  __device__ float Exponent(float dot, float slope_log2, int distance) const {
    const float x = tanh_scale != 0 ? __fmul_rn(cap_log2, Tanh(dot)) : __fmul_rn(dot, scale_log2);
    return __fmaf_rn(slope_log2, static_cast<float>(distance), x);
  }
  __device__ static float SlopeLog2(const ScoreRule& rule, int64_t head) {
    return rule.alibi == nullptr ? 0.0f : __fmul_rn(rule.alibi[head], kLog2E);
  }
  __device__ static float SinkLog2(const ScoreRule& rule, int64_t head) {
    return __fmul_rn(__bfloat162float(static_cast<const __nv_bfloat16*>(rule.sinks)[head]), kLog2E);
  }
};

// What a lane's two rows see of a tile, and what their distance to a key adds.
struct TileRows {
  int visible[2];         // keys of the tile from here on come after the query
  int hidden[2] = {};     // keys before this are out of the window
  float slope_log2[2] = {};
};

// q_fragment[k]: the sixteen queries, columns 16 k to 16 k + 15. key and value: kKeyTile rows of
// kTileStride<kDim>. Without kRuled only `rows.visible` and the scale count. `between` is called when the keys are read and
// before the values are.
struct Nothing {
  __device__ void operator()() const {}
};
template <int kDim, bool kRuled, typename Between = Nothing>
__device__ inline void AddTile(const uint32_t (&q_fragment)[kDim / 16][4], const __nv_bfloat16* key,
                               const __nv_bfloat16* value, const TileRows& rows,
                               const ScoreTerms& terms, ChunkState<kDim>& state, Between between = {}) {
  const int lane = threadIdx.x % 32;
  float score[kKeyTile / 8][4];
#pragma unroll
  for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) score[n][i] = 0;
  }
  // Two key groups of 8 at once: matrices are (keys 0-7, k 0-7), (0-7, 8-15), (8-15, 0-7), (8-15, 8-15).
  const int key_row = lane % 8 + lane / 16 * 8, key_column = lane / 8 % 2 * 8;
#pragma unroll
  for (int n = 0; n < kKeyTile / 16; ++n) {
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t b[4];
      LoadMatrices(b, key + (n * 16 + key_row) * kTileStride<kDim> + k * 16 + key_column);
      Multiply(score[2 * n], q_fragment[k], b[0], b[1]);
      Multiply(score[2 * n + 1], q_fragment[k], b[2], b[3]);
    }
  }
  const bool bends = kRuled && terms.bends;
  const float scale_log2 = bends ? 1.0f : terms.scale_log2;  // of what stands in `score`
  float highest[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = n * 8 + lane % 4 * 2 + i % 2;
      if (bends) {
        score[n][i] = terms.Exponent(score[n][i], rows.slope_log2[i / 2], column + 1 - rows.visible[i / 2]);
      }
      if (column >= rows.visible[i / 2]) score[n][i] = -INFINITY;
      if (kRuled && column < rows.hidden[i / 2]) score[n][i] = -INFINITY;
      highest[i / 2] = fmaxf(highest[i / 2], score[n][i]);
    }
  }
  float rescale[2], shift[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    highest[r] = fmaxf(highest[r], __shfl_xor_sync(~0u, highest[r], 1));
    highest[r] = fmaxf(highest[r], __shfl_xor_sync(~0u, highest[r], 2));
    const float max = fmaxf(state.max[r], ceilf(__fmul_rn(highest[r], scale_log2)));
    rescale[r] = state.max[r] == max ? 1.0f : PowerOfTwo(state.max[r] - max);
    shift[r] = max == -INFINITY ? 0.0f : -max;
    state.max[r] = max;
    state.sum[r] = __fmul_rn(state.sum[r], rescale[r]);
  }
#pragma unroll
  for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      score[n][i] = PowerOfTwoOf(__fmaf_rn(score[n][i], scale_log2, shift[i / 2]));
      state.sum[i / 2] = __fadd_rn(state.sum[i / 2], score[n][i]);
    }
  }
  if (rescale[0] != 1.0f || rescale[1] != 1.0f) {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) state.out[n][i] = __fmul_rn(state.out[n][i], rescale[i / 2]);
    }
  }
  between();
  const int value_row = lane % 16, value_column = lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < kKeyTile / 16; ++k) {
    const uint32_t p[4] = {PackBf16(score[2 * k][0], score[2 * k][1]),
                           PackBf16(score[2 * k][2], score[2 * k][3]),
                           PackBf16(score[2 * k + 1][0], score[2 * k + 1][1]),
                           PackBf16(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      uint32_t b[4];
      LoadMatricesTransposed(b, value + (k * 16 + value_row) * kTileStride<kDim> + n * 16 + value_column);
      Multiply(state.out[2 * n], p, b[0], b[1]);
      Multiply(state.out[2 * n + 1], p, b[2], b[3]);
    }
  }
}

// What a row's sums of values are multiplied with in the end.
__device__ inline float Normaliser(float sum) { return __frcp_rn(sum); }

// One row's sums over chunks; `out` is any share of its columns.
template <int kCount>
struct RowTotal {
  float max = -INFINITY, sum = 0, out[kCount] = {};

  // chunk_sum is of the whole row.
  __device__ void Add(float chunk_max, float chunk_sum, const float (&chunk_out)[kCount]) {
    if (chunk_max == -INFINITY) return;
    const float both = fmaxf(max, chunk_max);
    const float keep = max == -INFINITY ? 0.0f : PowerOfTwo(max - both);
    const float take = PowerOfTwo(chunk_max - both);
    max = both;
    sum = __fadd_rn(__fmul_rn(sum, keep), __fmul_rn(chunk_sum, take));
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      out[i] = __fadd_rn(__fmul_rn(out[i], keep), __fmul_rn(chunk_out[i], take));
    }
  }
  // A score without a value.
  __device__ void AddSink(float sink_log2) {
    const float both = fmaxf(max, ceilf(sink_log2));
    const float keep = max == -INFINITY ? 0.0f : PowerOfTwo(max - both);
    max = both;
    sum = __fadd_rn(__fmul_rn(sum, keep), PowerOfTwoOf(__fsub_rn(sink_log2, both)));
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = __fmul_rn(out[i], keep);
  }
  __device__ float Output(int i) const { return __fmul_rn(out[i], Normaliser(sum)); }
  __device__ float LogSumExp() const { return (max + log2f(sum)) * 0.693147180559945309f; }
};

// The sum over the four lanes that share a row.
__device__ inline float RowSum(float lane_sum) {
  lane_sum = __fadd_rn(lane_sum, __shfl_xor_sync(~0u, lane_sum, 1));
  return __fadd_rn(lane_sum, __shfl_xor_sync(~0u, lane_sum, 2));
}

// Keys come in groups of sixteen that lie side by side in memory: pages hold a multiple of that.
inline constexpr int kKeyGroup = 16;
inline constexpr int kGroupsPerTile = kKeyTile / kKeyGroup;

// Where a sequence's keys are: the token index of the first key of a group.
struct KeyRows {
  const KeyValues& keys;
  int64_t sequence;
  int context;

  __device__ int64_t FirstToken(int group) const {
    const int position = group * kKeyGroup;
    if (keys.pages == nullptr) return keys.begin[sequence] + position;
    if (position >= context) return 0;
    const int32_t page = keys.pages[sequence * keys.pages_per_sequence + (position >> keys.page_shift)];
    return (static_cast<int64_t>(page) << keys.page_shift) + (position & ((1 << keys.page_shift) - 1));
  }
};

// Goes over one tile of keys or values in pieces of kPiece elements, shared by kThreads threads of which `thread` is this
// one's number: body(row, column, element of the source, whether the row is within the context). first_token[g] is where
// group g of the tile lies. What is beyond the context may not be read.
template <int kDim, int kPiece, int kThreads, typename Body>
__device__ inline void ForPieces(const int64_t (&first_token)[kGroupsPerTile], int64_t stride, int64_t head, int rows, int thread,
                          Body body) {
  constexpr int kPieces = kDim / kPiece;
  if constexpr (kThreads % kPieces == 0 && kThreads / kPieces <= kKeyGroup) {  // always the same column: little arithmetic
    constexpr int kRows = kThreads / kPieces;
    const int own_row = thread / kPieces, column = thread % kPieces * kPiece;
    const int64_t own = own_row * stride + head * kDim + column, step = kRows * stride;
#pragma unroll
    for (int g = 0; g < kGroupsPerTile; ++g) {
      int64_t element = first_token[g] * stride + own;
#pragma unroll
      for (int i = 0; i < kKeyGroup / kRows; ++i) {
        const int row = g * kKeyGroup + i * kRows + own_row;
        body(row, column, element, row < rows);
        element += step;
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < kKeyTile * kPieces / kThreads; ++i) {
      const int piece = i * kThreads + thread, row = piece / kPieces, column = piece % kPieces * kPiece;
      int64_t token = first_token[0];
#pragma unroll
      for (int g = 1; g < kGroupsPerTile; ++g) {
        if (row / kKeyGroup == g) token = first_token[g];
      }
      body(row, column, (token + row % kKeyGroup) * stride + head * kDim + column, row < rows);
    }
  }
}

// Copies a tile into shared memory, in the background, as it is: rows kStride elements apart, zeros beyond the context (of
// which nothing is read).
template <typename Element, int kDim, int kStride, int kThreads>
__device__ inline void CopyTile(const int64_t (&first_token)[kGroupsPerTile], const void* from, int64_t stride,
                         int64_t head, int rows, int thread, Element* to) {
  ForPieces<kDim, 16 / sizeof(Element), kThreads>(
      first_token, stride, head, rows, thread, [&](int row, int column, int64_t element, bool live) {
        CopyAsync16(to + row * kStride + column, static_cast<const Element*>(from) + element, live);
      });
}

}  // namespace rein::kernels
