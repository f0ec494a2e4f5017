#include "common/kernels/attention.h"

#include "common/kernels/attention_hopper.h"
#include "common/kernels/attention_launch.cuh"
#include "common/kernels/attention_tile.cuh"
#include "common/kernels/fp8.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kTilesPerChunk = kKeyChunk / kKeyTile;
constexpr int kNoWindow = 1 << 30;

// A tile of fp8 becomes one of bf16 on the way; what is copied is there at once.
template <int kDim, int kThreads>
__device__ void CopyFp8Tile(const int64_t (&first_token)[kGroupsPerTile], const void* from, int64_t stride,
                            int64_t head, int rows, int thread, bf16* to) {
  ForPieces<kDim, 8, kThreads>(
      first_token, stride, head, rows, thread, [&](int row, int column, int64_t element, bool live) {
        const auto* source = reinterpret_cast<const uint2*>(static_cast<const uint8_t*>(from) + element);
        *reinterpret_cast<uint4*>(to + row * kTileStride<kDim> + column) =
            Bf16OfFp8(live ? *source : make_uint2(0, 0));
      });
}

// A block of warps holds kQueryTile queries of one head.
template <int kDim>
struct PrefillLayout {
  static constexpr int kWarps = kQueryTile / 16, kThreads = 32 * kWarps;
  static constexpr int kTile = kKeyTile * kTileStride<kDim>;
  static constexpr int kStages = kDim > 128 ? 1 : 2;
  static constexpr int kBytes = 2 * kStages * kTile * 2;
};

template <int kDim, bool kRuled, bool kFp8>
__global__ void __launch_bounds__(PrefillLayout<kDim>::kThreads, 1)
    AttendPrefillKernel(AttentionForward r) {
  using L = PrefillLayout<kDim>;
  extern __shared__ __align__(16) bf16 shared[];
  const int64_t b = blockIdx.z, head = blockIdx.y;
  const int begin = r.query_begin[b], queries = r.query_begin[b + 1] - begin;
  // The longest work first.
  const int tile_of_queries = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  if (tile_of_queries * kQueryTile >= queries) return;
  const int context = r.context[b], first_query = tile_of_queries * kQueryTile;
  const int first_position = context - queries;  // of query 0
  const int64_t kv_head = head / (r.heads / r.kv_heads);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  int query[2], position[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    query[i] = first_query + warp * 16 + lane / 4 + 8 * i;
    position[i] = query[i] < queries ? first_position + query[i] : -1;
  }
  uint32_t q_fragment[kDim / 16][4];
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i % 2;
      const bf16* at = static_cast<const bf16*>(r.q) + (begin + query[row]) * r.q_stride +
                       head * kDim + k * 16 + i / 2 * 8 + lane % 4 * 2;
      q_fragment[k][i] = position[row] < 0 ? 0 : *reinterpret_cast<const uint32_t*>(at);
    }
  }
  const KeyRows rows{r.keys, b, context};
  const int last_query = min(first_query + kQueryTile, queries) - 1;
  const int tiles = (first_position + last_query) / kKeyTile + 1;
  const int window = kRuled && r.rule.window > 0 ? r.rule.window : kNoWindow;
  const int first_tile = max(0, first_position + first_query + 1 - window) / kKeyTile;
  auto stage_key = [&](int tile) { return shared + tile % L::kStages * 2 * L::kTile; };
  auto fetch = [&](int tile) {
    if (tile < tiles) {
      bf16* to = stage_key(tile);
      int64_t first_token[kGroupsPerTile];
#pragma unroll
      for (int g = 0; g < kGroupsPerTile; ++g) {
        first_token[g] = rows.FirstToken(tile * kGroupsPerTile + g);
      }
      const int live = context - tile * kKeyTile;
      auto copy = [&](const void* from, int64_t stride, bf16* into) {
        if constexpr (kFp8) {
          CopyFp8Tile<kDim, L::kThreads>(first_token, from, stride, kv_head, live, threadIdx.x, into);
        } else {
          CopyTile<bf16, kDim, kTileStride<kDim>, L::kThreads>(first_token, from, stride, kv_head, live, threadIdx.x, into);
        }
      };
      copy(r.keys.key, r.keys.key_stride, to);
      copy(r.keys.value, r.keys.value_stride, to + L::kTile);
    }
    CommitCopies();
  };
  const ScoreTerms terms(r.rule, r.scale);
  const float slope_log2 = ScoreTerms::SlopeLog2(r.rule, head);
  ChunkState<kDim> chunk;
  chunk.Reset();
  float total_max[2] = {-INFINITY, -INFINITY}, total_sum[2] = {};
  float total_out[kDim / 8][4] = {};
  // Calls `add` with the sums of row i.
  auto with_total = [&](int i, auto add) {
    RowTotal<kDim / 4> total;
    total.max = total_max[i];
    total.sum = total_sum[i];
#pragma unroll
    for (int n = 0; n < kDim / 4; ++n) total.out[n] = total_out[n / 2][i * 2 + n % 2];
    add(total);
    total_max[i] = total.max;
    total_sum[i] = total.sum;
#pragma unroll
    for (int n = 0; n < kDim / 4; ++n) total_out[n / 2][i * 2 + n % 2] = total.out[n];
  };
  auto add_chunk = [&] {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float sum = RowSum(chunk.sum[i]);
      float out[kDim / 4];
#pragma unroll
      for (int n = 0; n < kDim / 4; ++n) out[n] = chunk.out[n / 2][i * 2 + n % 2];
      with_total(i, [&](auto& total) { total.Add(chunk.max[i], sum, out); });
    }
    chunk.Reset();
  };

  if constexpr (L::kStages == 2) fetch(first_tile);
  for (int tile = first_tile; tile < tiles; ++tile) {
    if constexpr (L::kStages == 2) {
      fetch(tile + 1);
      WaitForCopies<1>();
    } else {
      fetch(tile);
      WaitForCopies<0>();
    }
    __syncthreads();
    TileRows seen;
    bool any = false;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      seen.visible[i] = position[i] + 1 - tile * kKeyTile;
      if constexpr (kRuled) {
        seen.hidden[i] = seen.visible[i] - window;
        seen.slope_log2[i] = slope_log2;
      }
      any = any || (seen.visible[i] > 0 && seen.hidden[i] < kKeyTile);
    }
    // Fewer instructions, the same bits: a tile that no row of this warp sees adds nothing.
    if (__any_sync(~0u, any)) {
      AddTile<kDim, kRuled>(q_fragment, stage_key(tile), stage_key(tile) + L::kTile, seen, terms, chunk);
    }
    if (tile % kTilesPerChunk == kTilesPerChunk - 1 || tile == tiles - 1) add_chunk();
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (position[i] < 0) continue;
    if (kRuled && r.rule.sinks != nullptr) {
      with_total(i, [&](auto& total) { total.AddSink(ScoreTerms::SinkLog2(r.rule, head)); });
    }
    const float normaliser = Normaliser(total_sum[i]);
    bf16* out = static_cast<bf16*>(r.out) + ((begin + query[i]) * r.heads + head) * kDim;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + n * 8 + lane % 4 * 2) =
          PackBf16(__fmul_rn(total_out[n][i * 2], normaliser), __fmul_rn(total_out[n][i * 2 + 1], normaliser));
    }
    if (r.lse != nullptr && lane % 4 == 0) {
      r.lse[head * r.lse_head_stride + (begin + query[i]) * r.lse_token_stride] =
          (total_max[i] + log2f(total_sum[i])) * 0.693147180559945309f;
    }
  }
}

}  // namespace

bool AttentionTakesWidths(int64_t head_dim, int64_t value_dim, const ScoreRule& rule) {
  return HopperPrefillTakes(head_dim, value_dim, rule);
}

absl::Status AttendPrefill(const AttentionForward& run, int64_t longest, void* stream) {
  if (run.tokens == 0) return absl::OkStatus();
  if (!run.keys.fp8 && HopperPrefillTakes(run.head_dim, run.value_dim, run.rule)) return AttendPrefillHopper(run, longest, stream);
  if (run.value_dim != run.head_dim) {
    return absl::UnimplementedError(absl::StrCat("AttendPrefill: keys of ", run.head_dim, " and values of ", run.value_dim, " on this GPU"));
  }
  return WithShape(run, [&](auto dim, auto ruled, auto fp8) {
    using L = PrefillLayout<dim.value>;
    auto* kernel = AttendPrefillKernel<dim.value, ruled.value, fp8.value>;
    absl::Status status = Widen("AttendPrefill", kernel, L::kBytes);
    if (!status.ok()) return status;
    const dim3 grid(static_cast<unsigned>((longest + kQueryTile - 1) / kQueryTile),
                    static_cast<unsigned>(run.heads), static_cast<unsigned>(run.sequences));
    kernel<<<grid, L::kThreads, L::kBytes, static_cast<cudaStream_t>(stream)>>>(run);
    return LaunchStatus("AttendPrefill");
  });
}

}  // namespace rein::kernels
