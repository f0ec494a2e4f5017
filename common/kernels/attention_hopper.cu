#include "common/kernels/attention_hopper.h"

#include <algorithm>

#include "common/kernels/attention_fetch.cuh"
#include "common/kernels/attention_tile.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_status.h"
#include "common/kernels/warpgroup.cuh"

namespace rein::kernels {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kTilesPerChunk = kKeyChunk / kKeyTile;
// Registers of a thread that copies, and of one that computes: together no more than the launch gives, 168 of each thread.
constexpr int kCopyRegisters = 40, kComputeRegisters = 232;
static_assert(kCopyRegisters + kGroups * kComputeRegisters <= (kGroups + 1) * 168);

// One computing warpgroup. The products of a tile's values run while the next tile's softmax is computed. kRuled: with
// a window or sinks; kBends: with a cap or slopes as well.
template <int kDim, int kValueDim, bool kRuled, bool kBends>
struct Attender {
  using L = Layout<kDim, kValueDim>;
  static constexpr int kBlocks = kValueDim / 64;

  const AttentionForward& r;
  const Work& work;
  int query[2], position[2];
  uint32_t q[L::kQueriesInRegisters ? kDim / 16 : 1][4];
  float score[8][4];
  uint32_t p[4][4];
  float chunk_max[2] = {-INFINITY, -INFINITY}, chunk_sum[2] = {}, chunk_out[kBlocks][8][4];
  float total_max[2] = {-INFINITY, -INFINITY}, total_sum[2] = {}, total_out[kBlocks][8][4] = {};

  // As RowTotal::Add, on the registers of both rows.
  __device__ void AddChunk(const float (&max)[2], const float (&lane_sum)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float sum = RowSum(lane_sum[i]);
      if (max[i] == -INFINITY) continue;
      const float both = fmaxf(total_max[i], max[i]);
      const float keep = total_max[i] == -INFINITY ? 0.0f : PowerOfTwo(total_max[i] - both);
      const float take = PowerOfTwo(max[i] - both);
      total_max[i] = both;
      total_sum[i] = __fadd_rn(__fmul_rn(total_sum[i], keep), __fmul_rn(sum, take));
#pragma unroll
      for (int n = 0; n < kBlocks * 8; ++n) {
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
          total_out[n / 8][n % 8][j] = __fadd_rn(__fmul_rn(total_out[n / 8][n % 8][j], keep),
                                                 __fmul_rn(chunk_out[n / 8][n % 8][j], take));
        }
      }
    }
  }

  // As RowTotal::AddSink.
  __device__ void AddSink(float sink_log2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float both = fmaxf(total_max[i], ceilf(sink_log2));
      const float keep = total_max[i] == -INFINITY ? 0.0f : PowerOfTwo(total_max[i] - both);
      total_max[i] = both;
      total_sum[i] = __fadd_rn(__fmul_rn(total_sum[i], keep), PowerOfTwoOf(__fsub_rn(sink_log2, both)));
#pragma unroll
      for (int n = 0; n < kBlocks * 8; ++n) {
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; ++j) total_out[n / 8][n % 8][j] = __fmul_rn(total_out[n / 8][n % 8][j], keep);
      }
    }
  }

  __device__ void StartScores(const bf16* own_query, const bf16* key) {
    const uint64_t of_query = Descriptor(own_query, 0), of_key = Descriptor(key, 0);
    if constexpr (L::kQueriesInRegisters) Pin(q);
    Pin(score);
    FenceProducts();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const int bytes = 2 * (k / 4 * 64 * 64 + k % 4 * 16);
      if constexpr (L::kQueriesInRegisters) {
        MultiplyScores(score, q[k], Behind(of_key, bytes), k > 0);
      } else {
        MultiplyScores(score, Behind(of_query, bytes), Behind(of_key, bytes), k > 0);
      }
    }
    CommitProducts();
  }
  // The first tile of a chunk begins the chunk's sums anew.
  __device__ void StartValues(int tile, const bf16* value) {
    const uint64_t of_value = Descriptor(value, kKeyTile * 128);
    Pin(p);
    Pin(chunk_out);
    FenceProducts();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        MultiplyValues(chunk_out[n], p[k], Behind(of_value, 2 * (n * kKeyTile * 64 + k * 16 * 64)),
                       k > 0 || (tile % kTilesPerChunk > 0 && tile > work.first_tile));
      }
    }
    CommitProducts();
  }

  // Turns scores into weights and says by what the sums so far are to be multiplied.
  __device__ void Softmax(int tile, bool boundary, float scale_log2, float (&rescale)[2]) {
    const int lane = threadIdx.x % 32;
    if constexpr (kBends) {
      const ScoreTerms terms(r.rule, r.scale);
      const float slope_log2 = ScoreTerms::SlopeLog2(r.rule, work.head);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          score[n][i] = terms.Exponent(score[n][i], slope_log2, tile * kKeyTile + n * 8 + lane % 4 * 2 + i % 2 - position[i / 2]);
        }
      }
    }
    if (boundary) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = tile * kKeyTile + n * 8 + lane % 4 * 2 + i % 2;
          if (key > position[i / 2]) score[n][i] = -INFINITY;
          if (kRuled && r.rule.window > 0 && key <= position[i / 2] - r.rule.window) score[n][i] = -INFINITY;
        }
      }
    }
    // Both rows, and both halves of each, side by side: what follows waits for it.
    float highest[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      highest[i] = score[0][i];
#pragma unroll
      for (int n = 1; n < 8; ++n) highest[i] = fmaxf(highest[i], score[n][i]);
    }
    float high[2], shift[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) high[i] = fmaxf(highest[2 * i], highest[2 * i + 1]);
#pragma unroll
    for (int distance = 1; distance <= 2; distance *= 2) {
#pragma unroll
      for (int i = 0; i < 2; ++i) high[i] = fmaxf(high[i], __shfl_xor_sync(~0u, high[i], distance));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float max = fmaxf(chunk_max[i], ceilf(__fmul_rn(high[i], scale_log2)));
      rescale[i] = PowerOfTwo(chunk_max[i] - max);
      shift[i] = max == -INFINITY ? 0.0f : -max;
      chunk_max[i] = max;
      chunk_sum[i] = __fmul_rn(chunk_sum[i], rescale[i]);
    }
    // Always so, and unknown to the compiler: the wait for products that follows depends on none of this, and the assembler
    // would move it to the front of its block.
    if (work.queries > 0) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          score[n][i] = PowerOfTwoOf(__fmaf_rn(score[n][i], scale_log2, shift[i / 2]));
          chunk_sum[i / 2] = __fadd_rn(chunk_sum[i / 2], score[n][i]);
        }
      }
    }
  }

  __device__ void Rescale(const float (&rescale)[2]) {
    if (!__any_sync(~0u, rescale[0] != 1.0f || rescale[1] != 1.0f)) return;
#pragma unroll
    for (int n = 0; n < kBlocks * 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        chunk_out[n / 8][n % 8][i] = __fmul_rn(chunk_out[n / 8][n % 8][i], rescale[i / 2]);
      }
    }
  }

  __device__ void PackWeights() {
#pragma unroll
    for (int k = 0; k < 4; ++k) PackLeft(score[2 * k], score[2 * k + 1], p[k]);
  }

  // The work is behind `before` tiles of this block's.
  __device__ void Run(int group, int before, const bf16* own_query, const bf16* stages, Barriers& barriers) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int first = work.first_query + group * 64;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      query[i] = first + warp * 16 + lane / 4 + 8 * i;
      position[i] = query[i] < work.queries ? work.first_position + query[i] : -1;
    }
    const float scale_log2 = kBends ? 1.0f : r.scale * kLog2E;  // of what Softmax() makes of scores
    // A warpgroup may have one tile less to see than the other, never more. One without queries walks over all tiles and sees
    // nothing.
    static_assert(kKeyTile == 64 && kGroups == 2 && kStages > 1);
    const int all = work.AllTiles(), own = first < work.queries ? work.Tiles(first + 64) : all;
    const int begin = kRuled ? work.first_tile : 0;  // of both: a tile that one of them does not see adds nothing
    auto stage = [&](int tile) { return StageOf(before + tile - begin); };
    auto parity = [&](int tile) { return ParityOf(before + tile - begin); };
    auto key = [&](int tile) { return stages + stage(tile) * L::kStage; };
    // By each warp for itself: one that had not yet waited for a tile would take the next one's phase for its own.
    auto release = [&](int tile) {
      if (lane == 0) barriers.empty[stage(tile)].Arrive();
    };
    auto boundary = [&](int tile) {
      const bool last = (tile + 1) * kKeyTile > work.first_position + first;
      return last || (kRuled && r.rule.window > 0 && tile * kKeyTile <= work.first_position + first + 63 - r.rule.window);
    };
    if constexpr (L::kQueriesInRegisters) {
#pragma unroll
      for (int k = 0; k < kDim / 16; ++k) {
        LoadMatrices(q[k], own_query + Swizzled(64, warp * 16 + lane % 16, k * 16 + lane / 16 * 8));
      }
    }
    float rescale[2];
    barriers.key_full[stage(begin)].Wait(parity(begin));
    StartScores(own_query, key(begin));
    WaitForProducts<0>();
    Pin(score);
    if constexpr (L::kQueriesInRegisters) LetQueriesGo(barriers);  // all of them were read by now
    Softmax(begin, boundary(begin), scale_log2, rescale);
    PackWeights();
    for (int tile = begin + 1; tile < own; ++tile) {
      barriers.value_full[stage(tile - 1)].Wait(parity(tile - 1));
      barriers.key_full[stage(tile)].Wait(parity(tile));
      StartScores(own_query, key(tile));
      StartValues(tile - 1, key(tile - 1) + L::kKeys);
      WaitForProducts<1>();  // the scores
      Pin(score);
      const bool new_chunk = tile % kTilesPerChunk == 0;
      const float old_max[2] = {chunk_max[0], chunk_max[1]}, old_sum[2] = {chunk_sum[0], chunk_sum[1]};
      if (new_chunk) {
#pragma unroll
        for (int i = 0; i < 2; ++i) chunk_max[i] = -INFINITY, chunk_sum[i] = 0;
      }
      Softmax(tile, boundary(tile), scale_log2, rescale);
      WaitForProducts<0>();  // the values
      Pin(chunk_out);
      Pin(p);
      release(tile - 1);
      new_chunk ? AddChunk(old_max, old_sum) : Rescale(rescale);
      PackWeights();
    }
    if constexpr (!L::kQueriesInRegisters) LetQueriesGo(barriers);
    barriers.value_full[stage(own - 1)].Wait(parity(own - 1));
    StartValues(own - 1, key(own - 1) + L::kKeys);
    WaitForProducts<0>();
    Pin(chunk_out);
    AddChunk(chunk_max, chunk_sum);
    release(own - 1);
    for (int tile = own; tile < all; ++tile) {  // seen by the other one alone
      barriers.key_full[stage(tile)].Wait(parity(tile));  // else this would count as the release of what stood there before
      release(tile);
    }
    if (kRuled && r.rule.sinks != nullptr) AddSink(ScoreTerms::SinkLog2(r.rule, work.head));
    Write();
  }

  __device__ void Write() {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (position[i] < 0) continue;
      const int64_t row = work.begin + query[i];
      const float normaliser = Normaliser(total_sum[i]);
      bf16* out = static_cast<bf16*>(r.out) + (row * r.heads + work.head) * kValueDim;
#pragma unroll
      for (int n = 0; n < kBlocks * 8; ++n) {
        *reinterpret_cast<uint32_t*>(out + n * 8 + lane % 4 * 2) =
            PackBf16(__fmul_rn(total_out[n / 8][n % 8][i * 2], normaliser), __fmul_rn(total_out[n / 8][n % 8][i * 2 + 1], normaliser));
      }
      if (r.lse != nullptr && lane % 4 == 0) {
        r.lse[work.head * r.lse_head_stride + row * r.lse_token_stride] = (total_max[i] + log2f(total_sum[i])) * 0.693147180559945309f;
      }
    }
  }
};

// Blocks stay: while one work's last sums are written, the next one's queries and keys come.
template <int kDim, int kValueDim, bool kRuled, bool kBends>
__global__ void __launch_bounds__(kThreads, 1) AttendPrefillHopperKernel(AttentionForward r, const __grid_constant__ Maps maps) {
  using L = Layout<kDim, kValueDim>;
  extern __shared__ bf16 unaligned[];
  __shared__ Barriers barriers;
  bf16* queries = reinterpret_cast<bf16*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023});
  bf16* stages = queries + L::kQuery;
  const bool in_pages = r.keys.pages != nullptr;
  if (threadIdx.x < kStages) {
    barriers.key_full[threadIdx.x].Init(in_pages ? kGroupThreads : 1);
    barriers.value_full[threadIdx.x].Init(in_pages ? kGroupThreads : 1);
    barriers.empty[threadIdx.x].Init(kGroups * kGroupThreads / 32);
  } else if (threadIdx.x == kStages) {
    barriers.query_full.Init(1);
    barriers.query_empty.Init((in_pages ? kGroups + 1 : kGroups) * kGroupThreads / 32);
  }
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  __syncthreads();
  // By a shuffle, so that the compiler sees that warps do not part here.
  const int group = __shfl_sync(~0u, threadIdx.x / kGroupThreads, 0);
  if (group == kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCopyRegisters));
    const bool first = threadIdx.x % kGroupThreads == 0;
    Works works{r};
    if (in_pages) {
      bool more = first && works.template Begin<kDim>(maps, 0, queries, barriers);
      ForWorks(r, barriers, [&](const Work& work, int number, int tiles) {
        LetQueriesGo(barriers);
        CopyTiles<kDim, kValueDim>(r, work, tiles, stages, barriers);
        if (more) more = works.template Begin<kDim>(maps, number + 1, queries, barriers);
      });
    } else if (first) {
      int tiles = 0;
      for (int number = 0; works.template Begin<kDim>(maps, number, queries, barriers); ++number) {
        const Work work(r, barriers.sequence, barriers.head, barriers.first_query);
        FetchTiles<kDim, kValueDim>(maps, r, work, tiles, stages, barriers);
        tiles += work.AllTiles() - work.first_tile;
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kComputeRegisters));
    ForWorks(r, barriers, [&](const Work& work, int, int tiles) {
      Attender<kDim, kValueDim, kRuled, kBends> attender{r, work};
      attender.Run(group, tiles, queries + group * 64 * kDim, stages, barriers);
    });
  }
}

template <int kDim, int kValueDim>
absl::Status Launch(const AttentionForward& run, int64_t longest, void* stream) {
  auto* kernel = run.rule.plain() ? AttendPrefillHopperKernel<kDim, kValueDim, false, false> : AttendPrefillHopperKernel<kDim, kValueDim, true, false>;
  if constexpr (kDim == kValueDim) {
    if (run.rule.bends_scores()) kernel = AttendPrefillHopperKernel<kDim, kValueDim, true, true>;
  }
  constexpr int kBytes = Layout<kDim, kValueDim>::kBytes;
  Maps maps{};
  auto describe = [&](const void* matrix, int64_t rows, int64_t heads, int64_t dim, int64_t stride, CUtensorMap* map) {
    return DescribeMatrix("AttendPrefill", matrix, rows, heads * dim, stride, 64, static_cast<int>(dim / kBlockColumns), map);
  };
  if (absl::Status s = describe(run.q, run.tokens, run.heads, kDim, run.q_stride, &maps.query); !s.ok()) return s;
  if (run.keys.pages == nullptr) {
    static_assert(kKeyTile == 64);
    absl::Status of_key = describe(run.keys.key, run.keys.tokens, run.kv_heads, kDim, run.keys.key_stride, &maps.key);
    if (!of_key.ok()) return of_key;
    absl::Status of_value = describe(run.keys.value, run.keys.tokens, run.kv_heads, kValueDim, run.keys.value_stride, &maps.value);
    if (!of_value.ok()) return of_value;
  }
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  cudaMemsetAsync(run.counter, 0, sizeof(int32_t), static_cast<cudaStream_t>(stream));
  const int64_t works = (longest + kQueryTile - 1) / kQueryTile * run.heads * run.sequences;  // at most
  const auto grid = static_cast<unsigned>(std::min<int64_t>(works, DeviceAttribute(cudaDevAttrMultiProcessorCount)));
  kernel<<<grid, kThreads, kBytes, static_cast<cudaStream_t>(stream)>>>(run, maps);
  return LaunchStatus("AttendPrefill");
}

}  // namespace

bool HopperPrefillTakes(int64_t head_dim, int64_t value_dim, const ScoreRule& rule) {
  const bool widths = head_dim == value_dim ? head_dim == 64 || head_dim == 128 : head_dim == 192 && value_dim == 128 && !rule.bends_scores();
  return widths && IsHopper();
}

absl::Status AttendPrefillHopper(const AttentionForward& run, int64_t longest, void* stream) {
  switch (run.head_dim) {
    case 64: return Launch<64, 64>(run, longest, stream);
    case 128: return Launch<128, 128>(run, longest, stream);
    default: return Launch<192, 128>(run, longest, stream);
  }
}

}  // namespace rein::kernels
