#include "common/kernels/attention_gradient.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/kernels/attention_launch.cuh"
#include "common/kernels/attention_tile.cuh"
#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_status.h"
#include "common/kernels/ragged.cuh"

namespace rein::kernels {
namespace {

constexpr int kRows = 64;   // of a tile, of queries as of keys
constexpr int kSlice = 32;  // rows of the other tile whose scores stand in registers at once

template <int kDim>
struct GradientLayout {
  static constexpr int kParts = kDim > 128 ? 2 : 1;  // warps that share sixteen rows, each with its share of the columns
  static constexpr int kWarps = kRows / 16 * kParts, kThreads = 32 * kWarps;
  static constexpr int kColumns = kDim / kParts;
  static constexpr int kTile = kRows * kTileStride<kDim>;
  // With two stages the next tiles are copied while the last ones are used.
  static constexpr int Bytes(int stages) { return (1 + stages) * 2 * kTile * 2 + stages * 2 * kRows * 4; }
};

// Rows [first, first + kRows) of one head into shared memory, in the background; zeros beyond `length`.
template <int kDim>
__device__ void CopyRows(const void* from, int64_t stride, int64_t head, int begin, int first, int length, bf16* to) {
  constexpr int kPieces = kDim / 8, kThreads = GradientLayout<kDim>::kThreads;
  const bf16* source = static_cast<const bf16*>(from) + head * kDim;
#pragma unroll
  for (int i = 0; i < kRows * kPieces / kThreads; ++i) {
    const int piece = i * kThreads + threadIdx.x, row = piece / kPieces, column = piece % kPieces * 8;
    const bool live = first + row < length;
    const int64_t token = begin + first + row;
    CopyAsync16(to + row * kTileStride<kDim> + column, live ? source + token * stride + column : source, live);
  }
}

// kOwnKeys: a block owns kRows keys of a kv head and goes over the queries that see them, for dk and dv; else it owns
// queries of a head and goes over the keys that they see, for dq. "Other" is what it goes over.
template <int kDim, bool kOwnKeys, bool kRuled>
__global__ void __launch_bounds__(GradientLayout<kDim>::kThreads)
    AttendBackwardKernel(AttentionBackward r, const float* delta, int stages) {
  using L = GradientLayout<kDim>;
  extern __shared__ __align__(16) bf16 shared[];
  bf16 *own1 = shared, *own2 = own1 + L::kTile, *staged = own2 + L::kTile;
  float* staged_sums = reinterpret_cast<float*>(staged + stages * 2 * L::kTile);  // of other queries: lse, delta
  const int64_t b = blockIdx.z;
  const int query_begin = r.query.begin[b], queries = LengthOf(r.query, b);
  const int key_begin = r.key.begin[b], keys = LengthOf(r.key, b);
  // The longest work first.
  const int first = kRows * static_cast<int>(kOwnKeys ? blockIdx.x : gridDim.x - 1 - blockIdx.x);
  if (first >= (kOwnKeys ? keys : queries)) return;
  const int group = static_cast<int>(r.heads / r.kv_heads);
  const int own_head = blockIdx.y, kv_head = kOwnKeys ? own_head : own_head / group;
  const int warp = threadIdx.x / 32 % (kRows / 16), part = threadIdx.x / 32 / (kRows / 16), lane = threadIdx.x % 32;
  const int64_t dense_q = r.heads * kDim;
  const int window = kRuled && r.rule.window > 0 ? r.rule.window : 1 << 30;
  const ScoreTerms terms(r.rule, r.scale);
  const bool bends = kRuled && terms.bends;

  auto copy_queries = [&](int head, int from, bf16* q, bf16* dout) {
    CopyRows<kDim>(r.q, r.q_stride, head, query_begin, from, queries, q);
    CopyRows<kDim>(r.dout, dense_q, head, query_begin, from, queries, dout);
  };
  auto copy_keys = [&](int from, bf16* k, bf16* v) {
    CopyRows<kDim>(r.k, r.k_stride, kv_head, key_begin, from, keys, k);
    CopyRows<kDim>(r.v, r.v_stride, kv_head, key_begin, from, keys, v);
  };
  auto lse_log2 = [&](int query, int head) {
    return query < queries ? r.lse[(query_begin + static_cast<int64_t>(query)) * r.heads + head] * kLog2E : 0.0f;
  };
  auto delta_of = [&](int query, int head) {
    return query < queries ? delta[(query_begin + static_cast<int64_t>(query)) * r.heads + head] : 0.0f;
  };

  if constexpr (kOwnKeys) {
    copy_keys(first, own1, own2);
  } else {
    copy_queries(own_head, first, own1, own2);
  }
  int own_row[2];
  float own_lse[2] = {}, own_delta[2] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    own_row[i] = first + warp * 16 + lane / 4 + 8 * i;
    if constexpr (!kOwnKeys) {
      own_lse[i] = lse_log2(own_row[i], own_head);
      own_delta[i] = delta_of(own_row[i], own_head);
    }
  }
  // Other rows that some own row sees, or is seen by.
  const int others = kOwnKeys ? queries : keys;
  int other_begin = 0, other_end = others;
  if (r.causal) {
    other_begin = kOwnKeys ? first : max(0, first + 1 - window) / kRows * kRows;
    other_end = min(others, kOwnKeys ? first + kRows - 1 + window : first + kRows);
  }
  float sum1[L::kColumns / 8][4] = {};  // dq, or dk
  float sum2[kOwnKeys ? L::kColumns / 8 : 1][4] = {};  // dv

  const int tiles = max(0, other_end - other_begin + kRows - 1) / kRows, total = (kOwnKeys ? group : 1) * tiles;
  auto head_of = [&](int i) { return kOwnKeys ? kv_head * group + i / tiles : own_head; };
  auto first_of = [&](int i) { return other_begin + i % tiles * kRows; };
  auto fetch = [&](int i) {
    if (i < total) {
      bf16* to = staged + i % stages * 2 * L::kTile;
      if constexpr (kOwnKeys) {
        copy_queries(head_of(i), first_of(i), to, to + L::kTile);
        float* sums = staged_sums + i % stages * 2 * kRows;
        if (threadIdx.x < kRows) {
          sums[threadIdx.x] = lse_log2(first_of(i) + threadIdx.x, head_of(i));
          sums[kRows + threadIdx.x] = delta_of(first_of(i) + threadIdx.x, head_of(i));
        }
      } else {
        copy_keys(first_of(i), to, to + L::kTile);
      }
    }
    CommitCopies();
  };
  fetch(0);
  for (int i = 0; i < total; ++i) {
    if (stages > 1) {
      fetch(i + 1);
      WaitForCopies<1>();
    } else {
      WaitForCopies<0>();
    }
    __syncthreads();
    const int other = first_of(i);
    const float slope_log2 = kRuled ? ScoreTerms::SlopeLog2(r.rule, head_of(i)) : 0.0f;
    const bf16 *other1 = staged + i % stages * 2 * L::kTile, *other2 = other1 + L::kTile;
    const float *tile_lse = staged_sums + i % stages * 2 * kRows, *tile_delta = tile_lse + kRows;
#pragma unroll 1
    for (int slice = 0; slice < kRows; slice += kSlice) {
      float score[kSlice / 8][4] = {}, dweight[kSlice / 8][4] = {};
      // As in AddTile(): own rows are the left matrix, other rows the right one.
      const int left = (warp * 16 + lane % 16) * kTileStride<kDim> + lane / 16 * 8;
      const int right = (slice + lane % 8 + lane / 16 * 8) * kTileStride<kDim> + lane / 8 % 2 * 8;
#pragma unroll
      for (int k = 0; k < kDim; k += 16) {
        uint32_t a1[4], a2[4];
        LoadMatrices(a1, own1 + left + k);
        LoadMatrices(a2, own2 + left + k);
#pragma unroll
        for (int n = 0; n < kSlice / 16; ++n) {
          uint32_t b1[4], b2[4];
          LoadMatrices(b1, other1 + right + n * 16 * kTileStride<kDim> + k);
          LoadMatrices(b2, other2 + right + n * 16 * kTileStride<kDim> + k);
          Multiply(score[2 * n], a1, b1[0], b1[1]);
          Multiply(score[2 * n + 1], a1, b1[2], b1[3]);
          Multiply(dweight[2 * n], a2, b2[0], b2[1]);
          Multiply(dweight[2 * n + 1], a2, b2[2], b2[3]);
        }
      }
      // score becomes the weight, dweight the gradient of the score.
#pragma unroll
      for (int n = 0; n < kSlice / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int in_tile = slice + n * 8 + lane % 4 * 2 + i % 2, other_row = other + in_tile;
          const int query = kOwnKeys ? other_row : own_row[i / 2], key = kOwnKeys ? own_row[i / 2] : other_row;
          const int distance = query - key;
          const bool seen = query < queries && key < keys && (!r.causal || (distance >= 0 && distance < window));
          const float dot = score[n][i];
          const float exponent = bends ? terms.Exponent(dot, slope_log2, -distance) : dot * terms.scale_log2;
          const float lse = kOwnKeys ? tile_lse[in_tile] : own_lse[i / 2];
          const float weight = seen ? PowerOfTwoOf(exponent - lse) : 0.0f;
          float slope = 1.0f;  // of the cap
          if (kRuled && terms.tanh_scale != 0) {
            const float t = terms.Tanh(dot);
            slope = 1.0f - t * t;
          }
          score[n][i] = weight;
          dweight[n][i] = weight * (dweight[n][i] - (kOwnKeys ? tile_delta[in_tile] : own_delta[i / 2])) * slope;
        }
      }
#pragma unroll
      for (int k = 0; k < kSlice / 16; ++k) {
        uint32_t a1[4], a2[4];
        PackLeft(dweight[2 * k], dweight[2 * k + 1], a1);
        if constexpr (kOwnKeys) PackLeft(score[2 * k], score[2 * k + 1], a2);
        const int across = (slice + k * 16 + lane % 16) * kTileStride<kDim> + part * L::kColumns + lane / 16 * 8;
#pragma unroll
        for (int n = 0; n < L::kColumns / 16; ++n) {
          uint32_t c[4];
          LoadMatricesTransposed(c, other1 + across + n * 16);
          Multiply(sum1[2 * n], a1, c[0], c[1]);
          Multiply(sum1[2 * n + 1], a1, c[2], c[3]);
          if constexpr (kOwnKeys) {
            LoadMatricesTransposed(c, other2 + across + n * 16);
            Multiply(sum2[2 * n], a2, c[0], c[1]);
            Multiply(sum2[2 * n + 1], a2, c[2], c[3]);
          }
        }
      }
    }
    __syncthreads();  // the next fetch writes over this stage
    if (stages == 1) fetch(i + 1);
  }
  WaitForCopies<0>();
  const int own_length = kOwnKeys ? keys : queries, own_begin = kOwnKeys ? key_begin : query_begin;
  const int64_t heads = kOwnKeys ? r.kv_heads : r.heads;
  auto write = [&](const auto& sum, void* to, float scale) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (own_row[i] >= own_length) continue;
      bf16* row = static_cast<bf16*>(to) + ((own_begin + static_cast<int64_t>(own_row[i])) * heads + own_head) * kDim +
                  part * L::kColumns;
#pragma unroll
      for (int n = 0; n < L::kColumns / 8; ++n) {
        *reinterpret_cast<uint32_t*>(row + n * 8 + lane % 4 * 2) = PackBf16(sum[n][i * 2] * scale, sum[n][i * 2 + 1] * scale);
      }
    }
  };
  if constexpr (kOwnKeys) {
    write(sum1, r.dk, r.scale);
    write(sum2, r.dv, 1.0f);
  } else {
    write(sum1, r.dq, r.scale);
  }
}

// kLanes lanes for each head of each token, eight columns at a time.
template <int kLanes>
__global__ void SumOfGradientsKernel(AttentionBackward r, float* delta) {
  const int64_t unit = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / kLanes, width = r.value_dim;
  const bool live = unit < r.tokens * r.heads;
  float sum = 0;
  for (int64_t c = threadIdx.x % kLanes * 8; live && c < width; c += kLanes * 8) {
    float out[8], dout[8];
    Load8(static_cast<const bf16*>(r.out) + unit * width + c, out);
    Load8(static_cast<const bf16*>(r.dout) + unit * width + c, dout);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = __fmaf_rn(out[i], dout[i], sum);
  }
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (live && threadIdx.x % kLanes == 0) delta[unit] = sum;
}

// A block for each head.
__global__ void SinkGradientKernel(AttentionBackward r, const float* delta) {
  __shared__ float scratch[32];
  const int64_t head = blockIdx.x;
  const float sink = __bfloat162float(static_cast<const bf16*>(r.rule.sinks)[head]);
  float sum = 0;
  for (int64_t t = threadIdx.x; t < r.tokens; t += blockDim.x) {
    sum += expf(sink - r.lse[t * r.heads + head]) * delta[t * r.heads + head];
  }
  sum = BlockSum(sum, scratch);
  if (threadIdx.x == 0) r.dsinks[head] -= sum;
}

template <int kDim, bool kOwnKeys>
absl::Status Launch(const AttentionBackward& run, const float* delta, void* stream) {
  using L = GradientLayout<kDim>;
  auto* kernel = run.rule.window == 0 && !run.rule.bends_scores() ? AttendBackwardKernel<kDim, kOwnKeys, false>
                                                                  : AttendBackwardKernel<kDim, kOwnKeys, true>;
  const int stages = L::Bytes(2) <= SharedMemoryOfBlock() ? 2 : 1, bytes = L::Bytes(stages);
  absl::Status status = Widen("AttendBackward", kernel, bytes);
  if (!status.ok()) return status;
  const int64_t longest = kOwnKeys ? run.longest_key : run.longest_query;
  const dim3 grid(static_cast<unsigned>((longest + kRows - 1) / kRows),
                  static_cast<unsigned>(kOwnKeys ? run.kv_heads : run.heads), static_cast<unsigned>(run.sequences));
  kernel<<<grid, L::kThreads, bytes, static_cast<cudaStream_t>(stream)>>>(run, delta, stages);
  return LaunchStatus("AttendBackward");
}

template <int kDim>
absl::Status LaunchBoth(const AttentionBackward& run, const float* delta, void* stream) {
  absl::Status status = Launch<kDim, true>(run, delta, stream);
  return status.ok() ? Launch<kDim, false>(run, delta, stream) : status;
}

}  // namespace

absl::Status SumOfGradients(const AttentionBackward& run, float* delta, void* stream) {
  if (run.tokens == 0) return absl::OkStatus();
  auto* kernel = run.value_dim <= 64 ? SumOfGradientsKernel<8> : run.value_dim <= 128 ? SumOfGradientsKernel<16> : SumOfGradientsKernel<32>;
  const int64_t lanes = run.value_dim <= 64 ? 8 : run.value_dim <= 128 ? 16 : 32, of_block = 256 / lanes;
  kernel<<<static_cast<unsigned>((run.tokens * run.heads + of_block - 1) / of_block), 256, 0, static_cast<cudaStream_t>(stream)>>>(run, delta);
  return LaunchStatus("SumOfGradients");
}

absl::Status AttendBackwardByWarps(const AttentionBackward& run, const float* delta, void* stream) {
  if (run.tokens == 0) return absl::OkStatus();
  switch (run.head_dim) {
    case 32: return LaunchBoth<32>(run, delta, stream);
    case 64: return LaunchBoth<64>(run, delta, stream);
    case 96: return LaunchBoth<96>(run, delta, stream);
    case 128: return LaunchBoth<128>(run, delta, stream);
    case 256: return LaunchBoth<256>(run, delta, stream);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("AttendBackward: head_dim is ", run.head_dim, ", want 32, 64, 96, 128 or 256"));
}

absl::Status SinkGradient(const AttentionBackward& run, const float* delta, void* stream) {
  if (run.tokens == 0) return absl::OkStatus();
  SinkGradientKernel<<<static_cast<unsigned>(run.heads), 512, 0, static_cast<cudaStream_t>(stream)>>>(run, delta);
  return LaunchStatus("SinkGradient");
}

}  // namespace rein::kernels
