// How the queries, keys and values of attention's forward on a Hopper come into shared memory, work by work; only for
// attention_hopper.cu.

#pragma once

#include <cuda_bf16.h>

#include "common/kernels/attention_tile.cuh"
#include "common/kernels/warpgroup.cuh"

namespace rein::kernels {

inline constexpr int kGroupThreads = 128;       // of one warpgroup
inline constexpr int kGroups = kQueryTile / 64;  // that compute, 64 queries each; one more warpgroup copies
inline constexpr int kThreads = (kGroups + 1) * kGroupThreads;
inline constexpr int kStages = 4;

// kDim: of a head's queries and keys; kValueDim: of its values and output.
template <int kDim, int kValueDim>
struct Layout {
  static constexpr int kQuery = kQueryTile * kDim;  // elements
  static constexpr int kKeys = kKeyTile * kDim, kValues = kKeyTile * kValueDim;
  static constexpr int kStage = kKeys + kValues;
  static constexpr int kBytes = (kQuery + kStages * kStage) * 2 + 1024;  // blocks begin at 1024 bytes
  static constexpr bool kQueriesInRegisters = kDim <= 128;                // which spares reading them for each tile
};

// kQueryTile queries of one head of one sequence.
struct Work {
  int sequence, head, kv_head;
  int begin, queries, context, first_query, first_position;  // of the sequence; position of query 0
  int first_tile;  // that the window of the first query reaches; stages and barriers count from it

  __device__ Work(const AttentionForward& r, int sequence, int head, int first_query)
      : sequence(sequence), head(head), kv_head(head / static_cast<int>(r.heads / r.kv_heads)),
        begin(r.query_begin[sequence]), queries(r.query_begin[sequence + 1] - begin),
        context(r.context[sequence]),
        first_query(first_query),
        first_position(context - queries),
        first_tile(r.rule.window > 0 ? max(0, first_position + first_query + 1 - r.rule.window) / kKeyTile : 0) {}

  // Tiles that queries before `end` see.
  __device__ int Tiles(int end) const { return (first_position + min(end, queries) - 1) / kKeyTile + 1; }
  __device__ int AllTiles() const { return Tiles(first_query + kQueryTile); }
};

struct Barriers {
  Barrier key_full[kStages], value_full[kStages], empty[kStages];
  Barrier query_full, query_empty;
  // What the queries are of, as long as they are full; sequence -1: there is no more.
  int sequence, head, first_query;
};

__device__ inline int StageOf(int tile) { return static_cast<int>(static_cast<unsigned>(tile) % kStages); }
__device__ inline int ParityOf(int tile) { return static_cast<int>(static_cast<unsigned>(tile) / kStages % 2); }

// Copies a thread's share of one tile: 16 bytes of every sixteenth row, in each block of 64 columns.
template <int kWidth>
__device__ inline void CopyRows(const KeyRows& rows, int tile, int live, const __nv_bfloat16* source, int64_t stride, __nv_bfloat16* to) {
  constexpr int kPieces = 64 / 8;
  static_assert(kGroupThreads / kPieces == kKeyGroup);
  const int thread = threadIdx.x % kGroupThreads, row = thread / kPieces, column = thread % kPieces * 8;
  const __nv_bfloat16* own = source + row * stride + column;
  __nv_bfloat16* target = to + Swizzled(kKeyTile, row, column);
#pragma unroll
  for (int g = 0; g < kGroupsPerTile; ++g) {
    const bool is_live = g * kKeyGroup + row < live;
    const __nv_bfloat16* from = is_live ? own + rows.FirstToken(tile * kGroupsPerTile + g) * stride : source;
#pragma unroll
    for (int block = 0; block < kWidth / 64; ++block) {
      CopyAsync16(target + block * kKeyTile * 64 + g * kKeyGroup * 64, is_live ? from + block * 64 : source, is_live);
    }
  }
  CommitCopies();
}

// Where queries, keys and values of all sequences are, for the copy engine.
struct Maps {
  CUtensorMap query, key, value;
};

// Hands out works: blocks take what is next, sequence by sequence, of each the last queries of all heads first.
struct Works {
  const AttentionForward& r;
  int next = static_cast<int>(blockIdx.x), first = 0;  // the first one of `sequence`
  int sequence = 0;

  __device__ int OfSequence() const {
    return (r.query_begin[sequence + 1] - r.query_begin[sequence] + kQueryTile - 1) / kQueryTile * static_cast<int>(r.heads);
  }

  // By one thread: says what comes next and has its queries fetched, 64 rows for each warpgroup. What follows a sequence's
  // last query is not looked at. False: there is no more.
  template <int kDim>
  __device__ bool Begin(const Maps& maps, int number, __nv_bfloat16* to, Barriers& barriers) {
    int count = 0;
    while (sequence < r.sequences && next >= first + (count = OfSequence())) first += count, ++sequence;
    if (number > 0) barriers.query_empty.Wait((number - 1) % 2);
    if (sequence == r.sequences) {
      barriers.sequence = -1;
      barriers.query_full.Arrive();
      return false;
    }
    const int heads = static_cast<int>(r.heads), of_sequence = next - first;
    barriers.sequence = sequence;
    barriers.head = of_sequence % heads;
    barriers.first_query = (count / heads - 1 - of_sequence / heads) * kQueryTile;
    const int row = r.query_begin[sequence] + barriers.first_query;
    next = static_cast<int>(gridDim.x) + atomicAdd(r.counter, 1);
    barriers.query_full.Expect(2 * kQueryTile * kDim);
    for (int group = 0; group < kGroups; ++group) {
      FetchBlocks(maps.query, barriers.head * (kDim / kBlockColumns), row + group * 64, to + group * 64 * kDim, barriers.query_full);
    }
    return true;
  }
};

// Calls body(work, number of works before it, tiles of works before it) for each work of this block. Those who call are counted by
// `query_empty`: they say themselves when they need the queries no more.
template <typename Body>
__device__ inline void ForWorks(const AttentionForward& r, Barriers& barriers, Body body) {
  for (int number = 0, tiles = 0;; ++number) {
    barriers.query_full.Wait(number % 2);
    if (barriers.sequence < 0) return;
    const Work work(r, barriers.sequence, barriers.head, barriers.first_query);
    body(work, number, tiles);
    tiles += work.AllTiles() - work.first_tile;
  }
}

// By one lane for all of a warp.
__device__ inline void LetQueriesGo(Barriers& barriers) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) barriers.query_empty.Arrive();
}

// The keys and values of a work, one tile after another, into the stages; by one thread. They lie side by side: what follows
// a sequence's last key is of the next one, which no query of this sees.
template <int kDim, int kValueDim>
__device__ inline void FetchTiles(const Maps& maps, const AttentionForward& r, const Work& work, int before, __nv_bfloat16* stages, Barriers& barriers) {
  using L = Layout<kDim, kValueDim>;
  const int tiles = work.AllTiles() - work.first_tile;
  const int first_key = r.keys.begin[work.sequence] + work.first_tile * kKeyTile;
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = StageOf(before + tile);
    if (before + tile >= kStages) barriers.empty[stage].Wait(ParityOf(before + tile) ^ 1);
    __nv_bfloat16* to = stages + stage * L::kStage;
    barriers.key_full[stage].Expect(2 * L::kKeys);
    FetchBlocks(maps.key, work.kv_head * (kDim / kBlockColumns), first_key + tile * kKeyTile, to, barriers.key_full[stage]);
    barriers.value_full[stage].Expect(2 * L::kValues);
    FetchBlocks(maps.value, work.kv_head * (kValueDim / kBlockColumns), first_key + tile * kKeyTile, to + L::kKeys, barriers.value_full[stage]);
  }
}

// The same by all threads of the warpgroup, from pages.
template <int kDim, int kValueDim>
__device__ inline void CopyTiles(const AttentionForward& r, const Work& work, int before, __nv_bfloat16* stages, Barriers& barriers) {
  using L = Layout<kDim, kValueDim>;
  const int tiles = work.AllTiles() - work.first_tile;
  const KeyRows rows{r.keys, work.sequence, work.context};
  const __nv_bfloat16 *keys = static_cast<const __nv_bfloat16*>(r.keys.key) + int64_t{work.kv_head} * kDim,
             *values = static_cast<const __nv_bfloat16*>(r.keys.value) + int64_t{work.kv_head} * kValueDim;
  // Says that a tile's keys, or values, are there, once its copies are done.
  auto announce = [&](Barrier& barrier) {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
    barrier.Arrive();
  };
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = StageOf(before + tile), last = StageOf(before + tile - 1);
    if (before + tile >= kStages) barriers.empty[stage].Wait(ParityOf(before + tile) ^ 1);
    __nv_bfloat16* to = stages + stage * L::kStage;
    const int of_all = tile + work.first_tile, live = work.context - of_all * kKeyTile;
    CopyRows<kDim>(rows, of_all, live, keys, r.keys.key_stride, to);
    CopyRows<kValueDim>(rows, of_all, live, values, r.keys.value_stride, to + L::kKeys);
    if (tile == 0) continue;
    WaitForCopies<3>();
    announce(barriers.key_full[last]);
    WaitForCopies<2>();
    announce(barriers.value_full[last]);
  }
  const int last = StageOf(before + tiles - 1);
  WaitForCopies<1>();
  announce(barriers.key_full[last]);
  WaitForCopies<0>();
  announce(barriers.value_full[last]);
}

}  // namespace rein::kernels
