// A block holds the queries of sixteen heads and walks over an item: the first chunks of a run, or one of those behind them.
// One warp fetches tiles by the copy engine, eight multiply. Scores: each of these takes sixteen keys and half of the dims.
// Weights: two heads. Output: 64 columns.

#include "common/kernels/latent_decode.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "common/kernels/attention_tile.cuh"
#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/copy_engine.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/latent_plan.cuh"
#include "common/kernels/launch_overlap.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

constexpr int kKeyDim = kLatentKeyDim, kValueDim = kLatentValueDim, kRows = kLatentRows;
constexpr int kWarps = 8, kComputing = 32 * kWarps, kThreads = kComputing + 128;  // of the last 128, 32 work
// Registers of a thread that fetches, and of one that computes: together no more than the launch gives, 168 of each thread.
constexpr int kFetchRegisters = 40, kComputeRegisters = 232;
constexpr int kStages = 2;
constexpr int kScoreStride = kKeyTile + 8, kWeightStride = kKeyTile + 8;

// In shared memory sixteen keys, or queries, are lines of 64 elements as they are in memory, nine for each: to the copy engine
// the rows of a matrix of one block.
constexpr int kLine = kBlockColumns, kLines = kKeyDim / kLine, kGroupLines = kKeyGroup * kLines;
constexpr int kGroup = kGroupLines * kLine;  // elements
static_assert(kKeyGroup == kRows && kWarps == kValueDim / kLine);

// Eight elements of a line.
__device__ const bf16* Piece(const bf16* group, int line, int piece) { return group + SwizzledPiece(line, piece * 8); }

// What the fetching warp tells of a tile.
struct Tile {
  int32_t keys;  // that are in the context; 0: there is no more to do
  bool begins, ends_chunk, ends;  // its item: begins, ends
  int32_t query;                  // where its queries are
  int32_t part;                   // which sixteen of the heads
  int32_t sequence, sums;         // of its item
};

struct Shared {
  bf16 key[kStages][kGroupsPerTile][kGroup];
  bf16 query[2][kGroup];  // of this item and the next
  float score[2][kRows][kScoreStride];  // sums of either half of the dims
  bf16 weight[kRows][kWeightStride];
  float rescale[kRows];
  float keep[kRows], take[kRows];  // what chunks so far, and this one, are multiplied by when they are added
  float sum[kRows];                // of all these
  Tile tile[kStages];
  Barrier full[kStages], empty[kStages];
};
constexpr int kBytes = sizeof(Shared) + 1024;  // it begins at 1024 bytes

// The warp that fetches.
struct Fetcher {
  const CUtensorMap &queries, &keys;
  const LatentDecode& r;
  const LatentPlan& plan;
  const LatentScratch& s;
  Shared& shared;
  static constexpr int kTilesKnown = 32 * kKeyGroup / kKeyTile;  // whose tokens the lanes know: each of one group
  int lane = threadIdx.x % 32, parts = LatentParts(plan.heads), items = __ldcg(&s.counts->items) * parts;

  __device__ LatentItem Load(int number) const {
    if (number / parts >= s.most_items) return {};
    const int4 item = __ldcg(reinterpret_cast<const int4*>(s.item + number / parts));  // the first is not to wait for `items`
    return number < items ? LatentItem{item.x, item.y, item.z, item.w} : LatentItem{};
  }
  // Where the lane's group of keys lies, from a tile of the item on.
  __device__ int64_t FirstToken(const LatentItem& item, int tile) const {
    const int offset = tile * kKeyTile + lane * kKeyGroup, position = item.first_key + offset;
    if (offset >= item.keys) return 0;
    const int32_t page = __ldg(r.pages_of + static_cast<int64_t>(item.sequence) * r.pages_per_sequence + (position >> r.page_shift));
    return (static_cast<int64_t>(page) << r.page_shift) + (position & ((1 << r.page_shift) - 1));
  }

  __device__ void Run() {
    int number = blockIdx.x, count = 0, query = 0;  // count: tiles so far
    LatentItem item = Load(number);
    int64_t known = FirstToken(item, 0);
    bool awaited = false;
    auto await_last = [&] {
      if (!awaited) AwaitLast();
      awaited = true;
    };
    auto await_room = [&] {
      if (count >= kStages) shared.empty[count % kStages].Wait(count / kStages % 2 ^ 1);
    };
    while (item.keys > 0) {
      // What comes next is found step by step beside the last tiles: taken earlier, it would wait for a long item here
      // while other processors are done.
      int next_number = 0;
      LatentItem next{};
      int64_t known_of_next = 0;
      auto look_ahead = [&](int step) {
        if (step == 0 && lane == 0) next_number = atomicAdd(&s.counts->taken, 1);
        if (step == 1) next = Load(next_number = gridDim.x + __shfl_sync(~0u, next_number, 0));
        if (step == 2) known_of_next = FirstToken(next, 0);
      };
      const int tiles = (item.keys + kKeyTile - 1) / kKeyTile;
      int64_t known_later = 0;
      for (int t = 0; t < tiles; ++t, ++count) {
        if (t % kTilesKnown == 0) {
          if (t > 0) known = known_later;
          known_later = FirstToken(item, t + kTilesKnown);
        }
        const int stage = count % kStages, live = min(item.keys - t * kKeyTile, kKeyTile);
        const int groups = (live + kKeyGroup - 1) / kKeyGroup;
        const int64_t token = __shfl_sync(~0u, known, t % kTilesKnown * kGroupsPerTile + lane % kGroupsPerTile);
        await_room();
        if (lane == 0) {
          const bool ends = t + 1 == tiles;
          shared.tile[stage] = {live, t == 0, ends || (t + 1) % (kLatentChunk / kKeyTile) == 0, ends, query, number % parts, item.sequence, item.sums};
          shared.full[stage].Expect((groups + (t == 0)) * kGroup * 2);
        }
        __syncwarp();
        if (t + 1 == tiles) await_last();  // it may have the newest key
        // Once, though siblings may share it: sums are to stay in the L2 cache until they are added up.
        if (lane < groups) FetchBlocksOnce(keys, 0, static_cast<int>(token * kLines), shared.key[stage][lane], shared.full[stage]);
        await_last();
        if (t == 0 && lane == kGroupsPerTile) {
          const int64_t first = item.sequence * plan.heads + number % parts * kRows;
          FetchBlocks(queries, 0, static_cast<int>(first * kLines), shared.query[query], shared.full[stage]);
        }
        if (t == max(tiles - 2, 0)) look_ahead(0);
        if (t == tiles - 1) look_ahead(1);
      }
      look_ahead(2);
      item = next;
      number = next_number;
      known = known_of_next;
      query ^= 1;
    }
    await_room();
    if (lane > 0) return;
    shared.tile[count % kStages].keys = 0;
    shared.full[count % kStages].Arrive();
  }
};

__device__ void WaitForComputing() { asm volatile("bar.sync 1, %0;\n" ::"n"(kComputing) : "memory"); }

// A warp that multiplies.
struct Attender {
  static constexpr int kSteps = kKeyDim / 2 / 16;  // of a half of the dims

  const float scale_log2;
  const int heads;
  bf16* const to;
  const LatentScratch& s;
  Shared& shared;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int half = warp / kGroupsPerTile, group = warp % kGroupsPerTile;
  const int softmax_row = warp * 2 + lane / 16, softmax_column = lane % 16 * 4;
  uint32_t query[kSteps][4];
  // Of this chunk, and of those of the item before it. Of the softmax row; `sum` of the lane's columns.
  float max, sum, item_max, item_sum;
  float out[kLine / 8][4], item_out[kLine / 8][4];

  // Calls body(step, line, piece) for the steps of this warp's half of the dims; line and piece of sixteen elements.
  template <typename Body>
  __device__ void ForSteps(Body body) const {
    constexpr int kWhole = kLines / 2;
#pragma unroll
    for (int i = 0; i < kWhole; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) body(i * 4 + j, half * kWhole + i, j * 2);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) body(kWhole * 4 + j, kLines - 1, (half * 2 + j) * 2);
  }

  __device__ void BeginChunk() {
    max = -INFINITY;
    sum = 0;
#pragma unroll
    for (int n = 0; n < kLine / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] = 0;
    }
  }

  __device__ void Begin(const Tile& tile) {
    const bf16* queries = shared.query[tile.query];
    ForSteps([&](int step, int line, int piece) {
      LoadMatrices(query[step], Piece(queries, lane % 16 * kLines + line, piece + lane / 16));
    });
    item_max = -INFINITY;
    item_sum = 0;
#pragma unroll
    for (int n = 0; n < kLine / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) item_out[n][i] = 0;
    }
    BeginChunk();
  }

  __device__ void Scores(const bf16* keys) {
    float score[2][2][4] = {};  // of even and odd steps, of the first and the last eight keys
    const int key = lane % 8 + lane / 16 * 8;
    ForSteps([&](int step, int line, int piece) {
      uint32_t b[4];
      LoadMatrices(b, Piece(keys, key * kLines + line, piece + lane / 8 % 2));
      Multiply(score[step % 2][0], query[step], b[0], b[1]);
      Multiply(score[step % 2][1], query[step], b[2], b[3]);
    });
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        *reinterpret_cast<float2*>(&shared.score[half][lane / 4 + i * 8][group * kKeyGroup + n * 8 + lane % 4 * 2]) = make_float2(
            __fadd_rn(score[0][n][2 * i], score[1][n][2 * i]), __fadd_rn(score[0][n][2 * i + 1], score[1][n][2 * i + 1]));
      }
    }
  }

  __device__ void Softmax(int keys, bool ends_chunk) {
    const float4 a = *reinterpret_cast<const float4*>(&shared.score[0][softmax_row][softmax_column]),
                 b = *reinterpret_cast<const float4*>(&shared.score[1][softmax_row][softmax_column]);
    float score[4] = {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
    float highest = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (softmax_column + i >= keys) score[i] = -INFINITY;
      highest = fmaxf(highest, score[i]);
    }
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, offset));
    const float higher = fmaxf(max, ceilf(__fmul_rn(highest, scale_log2)));
    const float rescale = max == higher ? 1.0f : PowerOfTwo(max - higher), shift = higher == -INFINITY ? 0.0f : -higher;
    max = higher;
    sum = __fmul_rn(sum, rescale);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      score[i] = PowerOfTwoOf(__fmaf_rn(score[i], scale_log2, shift));
      sum = __fadd_rn(sum, score[i]);
    }
    *reinterpret_cast<uint2*>(&shared.weight[softmax_row][softmax_column]) =
        make_uint2(PackBf16(score[0], score[1]), PackBf16(score[2], score[3]));
    if (lane % 16 == 0) shared.rescale[softmax_row] = rescale;
    if (!ends_chunk) return;
    // As RowTotal::Add().
    float chunk_sum = sum;
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) chunk_sum = __fadd_rn(chunk_sum, __shfl_xor_sync(~0u, chunk_sum, offset));
    const float both = fmaxf(item_max, max);
    const float keep = item_max == -INFINITY ? 0.0f : PowerOfTwo(item_max - both);
    const float take = max == -INFINITY ? 0.0f : PowerOfTwo(max - both);
    item_max = both;
    item_sum = __fadd_rn(__fmul_rn(item_sum, keep), __fmul_rn(chunk_sum, take));
    if (lane % 16 == 0) shared.keep[softmax_row] = keep, shared.take[softmax_row] = take, shared.sum[softmax_row] = item_sum;
  }

  __device__ void EndChunk() {
    const float keep[2] = {shared.keep[lane / 4], shared.keep[lane / 4 + 8]}, take[2] = {shared.take[lane / 4], shared.take[lane / 4 + 8]};
#pragma unroll
    for (int n = 0; n < kLine / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        item_out[n][i] = __fadd_rn(__fmul_rn(item_out[n][i], keep[i / 2]), __fmul_rn(out[n][i], take[i / 2]));
      }
    }
    BeginChunk();
  }

  __device__ void AddValues(const bf16 (&values)[kGroupsPerTile][kGroup]) {
    const float rescale[2] = {shared.rescale[lane / 4], shared.rescale[lane / 4 + 8]};
    if (rescale[0] != 1.0f || rescale[1] != 1.0f) {
#pragma unroll
      for (int n = 0; n < kLine / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[n][i] = __fmul_rn(out[n][i], rescale[i / 2]);
      }
    }
    const int line = lane % 16 * kLines + warp;
#pragma unroll
    for (int k = 0; k < kGroupsPerTile; ++k) {
      uint32_t p[4];
      LoadMatrices(p, &shared.weight[lane % 16][k * kKeyGroup + lane / 16 * 8]);
#pragma unroll
      for (int n = 0; n < kLine / 16; ++n) {
        uint32_t b[4];
        LoadMatricesTransposed(b, Piece(values[k], line, n * 2 + lane / 16));
        Multiply(out[2 * n], p, b[0], b[1]);
        Multiply(out[2 * n + 1], p, b[2], b[3]);
      }
    }
  }

  // What was never written may be anything: weight 0 must not meet NaN.
  __device__ void ClearBeyond(int keys, bf16 (&values)[kGroupsPerTile][kGroup]) {
    constexpr int kPieces = kValueDim / 8;
    for (int piece = keys * kPieces + threadIdx.x; piece < kKeyTile * kPieces; piece += kComputing) {
      const int key = piece / kPieces;
      *reinterpret_cast<uint4*>(values[key / kKeyGroup] + key % kKeyGroup * kKeyDim + piece % kPieces * 8) = uint4{};
    }
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
  }

  // Leaves the item's sums, or the output.
  __device__ void End(const Tile& tile) const {
    const int first_head = tile.part * kRows;
    const bool all = tile.sums < 0;
    const int64_t first_row = static_cast<int64_t>(all ? tile.sequence : tile.sums) * heads + first_head;
    if (!all && lane % 16 == 0 && first_head + softmax_row < heads) {
      s.max[first_row + softmax_row] = item_max;
      s.sum[first_row + softmax_row] = item_sum;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4 + 8 * i;
      if (first_head + row >= heads) continue;
      const float of_row = shared.sum[row];
#pragma unroll
      for (int n = 0; n < kLine / 8; ++n) {
        const int64_t at = (first_row + row) * kValueDim + warp * kLine + n * 8 + lane % 4 * 2;
        const float two[2] = {item_out[n][2 * i], item_out[n][2 * i + 1]};
        if (all) {  // 0 is added as AddSumsKernel() does: -0 becomes 0
          const RowTotal<2> total{0, of_row, {__fadd_rn(0.0f, two[0]), __fadd_rn(0.0f, two[1])}};
          *reinterpret_cast<uint32_t*>(to + at) = PackBf16(total.Output(0), total.Output(1));
        } else {
          *reinterpret_cast<float2*>(s.out + at) = make_float2(two[0], two[1]);
        }
      }
    }
  }

  __device__ void Run() {
    for (int count = 0;; ++count) {
      const int stage = count % kStages;
      shared.full[stage].Wait(count / kStages % 2);
      const Tile tile = shared.tile[stage];
      if (tile.keys == 0) return;
      if (tile.begins) Begin(tile);
      Scores(shared.key[stage][group]);
      if (tile.keys < kKeyTile) ClearBeyond(tile.keys, shared.key[stage]);
      WaitForComputing();
      Softmax(tile.keys, tile.ends_chunk);
      WaitForComputing();
      AddValues(shared.key[stage]);
      __syncwarp();
      if (lane == 0) shared.empty[stage].Arrive();
      if (tile.ends_chunk) EndChunk();
      if (tile.ends) End(tile);
    }
  }
};

__global__ void __launch_bounds__(kThreads, 1)
    DecodeLatentKernel(const __grid_constant__ CUtensorMap queries, const __grid_constant__ CUtensorMap keys,
                       const __grid_constant__ LatentDecode r, const __grid_constant__ LatentPlan plan,
                       const __grid_constant__ LatentScratch s) {
  extern __shared__ uint8_t unaligned[];
  Shared& shared = *reinterpret_cast<Shared*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023});
  if (threadIdx.x < kStages) {
    shared.full[threadIdx.x].Init(1);
    shared.empty[threadIdx.x].Init(kWarps);
  }
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  __syncthreads();
  LetNextBegin();
  // By a shuffle, so that the compiler sees that warps do not part here.
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (warp < kWarps) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kComputeRegisters));
    AwaitLast();
    Attender{r.scale * 1.44269504088896340736f, static_cast<int>(plan.heads), static_cast<bf16*>(r.out), s, shared}.Run();
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kFetchRegisters));
    if (warp == kWarps) Fetcher{queries, keys, r, plan, s, shared}.Run();
  }
}

// So many tokens as lines, of which sixteen tokens are fetched at a time.
absl::Status DescribeTokens(const void* tokens, int64_t count, CUtensorMap* map) {
  return DescribeMatrix("DecodeLatent", tokens, count * kLines, kLine, kLine, kGroupLines, /*box_blocks=*/1, map);
}

}  // namespace

bool LatentDecodeTakes(int64_t key_dim, int64_t value_dim) {
  return key_dim == kLatentKeyDim && value_dim == kLatentValueDim && IsHopper();
}

absl::Status DecodeLatent(const LatentDecode& run, const LatentPlan& plan, void* scratch, void* stream) {
  if (!IsHopper()) return absl::UnimplementedError("DecodeLatent: this GPU is no Hopper");
  if (plan.sequences == 0) return absl::OkStatus();
  CUtensorMap queries, keys;
  const absl::Status of_queries = DescribeTokens(run.q, plan.sequences * plan.heads, &queries);
  const absl::Status of_keys = DescribeTokens(run.keys, run.pages << run.page_shift, &keys);
  if (!of_queries.ok() || !of_keys.ok()) return of_queries.ok() ? of_keys : of_queries;
  cudaFuncSetAttribute(DecodeLatentKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  const LatentScratch cut = CutLatentScratch(scratch, plan);
  const int64_t processors = DeviceAttribute(cudaDevAttrMultiProcessorCount);
  const auto blocks = static_cast<unsigned>(std::min(cut.most_items * LatentParts(plan.heads), processors));
  LaunchOverlapping(DecodeLatentKernel, dim3(blocks), kThreads, kBytes, stream, queries, keys, run, plan, cut);
  AddLatentSums(run.out, plan, cut, stream);
  return LaunchStatus("DecodeLatent");
}

}  // namespace rein::kernels
