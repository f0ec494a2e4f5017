#include "common/kernels/attention_hopper.h"

#include <algorithm>

#include "common/kernels/attention_tile.cuh"
#include "common/kernels/copy_engine.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

using bf16 = __nv_bfloat16;

constexpr float kLog2E = 1.44269504088896340736f;
constexpr int kTilesPerChunk = kKeyChunk / kKeyTile;
constexpr int kGroupThreads = 128;       // of one warpgroup
constexpr int kGroups = kQueryTile / 64;  // that compute, 64 queries each; one more warpgroup copies
constexpr int kThreads = (kGroups + 1) * kGroupThreads;
constexpr int kStages = 4;
// Registers of a thread that copies, and of one that computes: together no more than the launch gives, 168 of each thread.
constexpr int kCopyRegisters = 40, kComputeRegisters = 232;
static_assert(kCopyRegisters + kGroups * kComputeRegisters <= (kGroups + 1) * 168);

// Where shared memory has an element of a matrix of so many rows.
__device__ int Swizzled(int rows, int row, int column) {
  return column / kBlockColumns * rows * kBlockColumns + SwizzledPiece(row, column % kBlockColumns) + column % 8;
}

// The matrix descriptor of a block that begins at `address`; `block_stride` is the distance of blocks of 64
// columns, which only a matrix read across its rows (values) needs.
__device__ uint64_t Descriptor(const bf16* address, int block_stride_bytes) {
  uint64_t d = (SharedAddress(address) & 0x3FFFF) >> 4;
  d |= static_cast<uint64_t>(block_stride_bytes >> 4) << 16;
  d |= static_cast<uint64_t>(1024 >> 4) << 32;  // eight rows
  d |= uint64_t{1} << 62;                       // 128-byte swizzle
  return d;
}

// The descriptor of what lies so many bytes, a multiple of 16, behind a matrix.
__device__ uint64_t Behind(uint64_t descriptor, int bytes) {
  uint64_t d;
  asm("{\n.reg .b32 low, high;\nmov.b64 {low, high}, %1;\nadd.u32 low, low, %2;\nmov.b64 %0, {low, high};\n}\n"
      : "=l"(d)
      : "l"(descriptor), "r"(bytes >> 4));
  return d;
}

__device__ void Fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ void Commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kPending>
__device__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving what computes a register past this point: the registers of a product must be
// ready before it begins and untouched until it is waited for.
template <typename T, int kCount>
__device__ void Pin(T (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (std::is_array_v<T>) {
      Pin(registers[i]);
    } else if constexpr (std::is_same_v<T, float>) {
      asm volatile("" : "+f"(registers[i])::"memory");
    } else {
      asm volatile("" : "+r"(registers[i])::"memory");
    }
  }
}

// score[64 x 64] (+)= q[64 x 16] key[64 x 16]^T; the keys in shared memory, the queries in registers or there too.
__device__ void MultiplyScores(float (&d)[8][4], const uint32_t (&q)[4], uint64_t key, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"
      "%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, 0;\n}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
        "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(q[0]), "r"(q[1]), "r"(q[2]), "r"(q[3]), "l"(key), "r"(accumulate));
}
__device__ void MultiplyScores(float (&d)[8][4], uint64_t q, uint64_t key, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"
      "%27,%28,%29,%30,%31}, %32, %33, p, 1, 1, 0, 0;\n}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
        "+f"(d[7][2]), "+f"(d[7][3])
      : "l"(q), "l"(key), "r"(accumulate));
}

// out[64 x 64] (+)= p[64 x 16] value[16 x 64]; p in registers, value in shared memory, read across its rows.
__device__ void MultiplyValues(float (&d)[8][4], const uint32_t (&p)[4], uint64_t value, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"
      "%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
        "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(value), "r"(accumulate));
}

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

__device__ int StageOf(int tile) { return static_cast<int>(static_cast<unsigned>(tile) % kStages); }
__device__ int ParityOf(int tile) { return static_cast<int>(static_cast<unsigned>(tile) / kStages % 2); }

// Copies a thread's share of one tile: 16 bytes of every sixteenth row, in each block of 64 columns.
template <int kWidth>
__device__ void CopyRows(const KeyRows& rows, int tile, int live, const bf16* source, int64_t stride, bf16* to) {
  constexpr int kPieces = 64 / 8;
  static_assert(kGroupThreads / kPieces == kKeyGroup);
  const int thread = threadIdx.x % kGroupThreads, row = thread / kPieces, column = thread % kPieces * 8;
  const bf16* own = source + row * stride + column;
  bf16* target = to + Swizzled(kKeyTile, row, column);
#pragma unroll
  for (int g = 0; g < kGroupsPerTile; ++g) {
    const bool is_live = g * kKeyGroup + row < live;
    const bf16* from = is_live ? own + rows.FirstToken(tile * kGroupsPerTile + g) * stride : source;
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
  __device__ bool Begin(const Maps& maps, int number, bf16* to, Barriers& barriers) {
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
__device__ void ForWorks(const AttentionForward& r, Barriers& barriers, Body body) {
  for (int number = 0, tiles = 0;; ++number) {
    barriers.query_full.Wait(number % 2);
    if (barriers.sequence < 0) return;
    const Work work(r, barriers.sequence, barriers.head, barriers.first_query);
    body(work, number, tiles);
    tiles += work.AllTiles() - work.first_tile;
  }
}

// By one lane for all of a warp.
__device__ void LetQueriesGo(Barriers& barriers) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) barriers.query_empty.Arrive();
}

// The keys and values of a work, one tile after another, into the stages; by one thread. They lie side by side: what follows
// a sequence's last key is of the next one, which no query of this sees.
template <int kDim, int kValueDim>
__device__ void FetchTiles(const Maps& maps, const AttentionForward& r, const Work& work, int before, bf16* stages, Barriers& barriers) {
  using L = Layout<kDim, kValueDim>;
  const int tiles = work.AllTiles() - work.first_tile;
  const int first_key = r.keys.begin[work.sequence] + work.first_tile * kKeyTile;
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = StageOf(before + tile);
    if (before + tile >= kStages) barriers.empty[stage].Wait(ParityOf(before + tile) ^ 1);
    bf16* to = stages + stage * L::kStage;
    barriers.key_full[stage].Expect(2 * L::kKeys);
    FetchBlocks(maps.key, work.kv_head * (kDim / kBlockColumns), first_key + tile * kKeyTile, to, barriers.key_full[stage]);
    barriers.value_full[stage].Expect(2 * L::kValues);
    FetchBlocks(maps.value, work.kv_head * (kValueDim / kBlockColumns), first_key + tile * kKeyTile, to + L::kKeys, barriers.value_full[stage]);
  }
}

// The same by all threads of the warpgroup, from pages.
template <int kDim, int kValueDim>
__device__ void CopyTiles(const AttentionForward& r, const Work& work, int before, bf16* stages, Barriers& barriers) {
  using L = Layout<kDim, kValueDim>;
  const int tiles = work.AllTiles() - work.first_tile;
  const KeyRows rows{r.keys, work.sequence, work.context};
  const bf16 *keys = static_cast<const bf16*>(r.keys.key) + int64_t{work.kv_head} * kDim,
             *values = static_cast<const bf16*>(r.keys.value) + int64_t{work.kv_head} * kValueDim;
  // Says that a tile's keys, or values, are there, once its copies are done.
  auto announce = [&](Barrier& barrier) {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
    barrier.Arrive();
  };
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = StageOf(before + tile), last = StageOf(before + tile - 1);
    if (before + tile >= kStages) barriers.empty[stage].Wait(ParityOf(before + tile) ^ 1);
    bf16* to = stages + stage * L::kStage;
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

// One computing warpgroup. The products of a tile's values run while the next tile's softmax is computed. kRuled: with
// a window or sinks.
template <int kDim, int kValueDim, bool kRuled>
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
    Fence();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const int bytes = 2 * (k / 4 * 64 * 64 + k % 4 * 16);
      if constexpr (L::kQueriesInRegisters) {
        MultiplyScores(score, q[k], Behind(of_key, bytes), k > 0);
      } else {
        MultiplyScores(score, Behind(of_query, bytes), Behind(of_key, bytes), k > 0);
      }
    }
    Commit();
  }
  // The first tile of a chunk begins the chunk's sums anew.
  __device__ void StartValues(int tile, const bf16* value) {
    const uint64_t of_value = Descriptor(value, kKeyTile * 128);
    Pin(p);
    Pin(chunk_out);
    Fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        MultiplyValues(chunk_out[n], p[k], Behind(of_value, 2 * (n * kKeyTile * 64 + k * 16 * 64)),
                       k > 0 || (tile % kTilesPerChunk > 0 && tile > work.first_tile));
      }
    }
    Commit();
  }

  // Turns scores into weights and says by what the sums so far are to be multiplied.
  __device__ void Softmax(int tile, bool boundary, float scale_log2, float (&rescale)[2]) {
    const int lane = threadIdx.x % 32;
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
    for (int k = 0; k < 4; ++k) {
      p[k][0] = PackBf16(score[2 * k][0], score[2 * k][1]);
      p[k][1] = PackBf16(score[2 * k][2], score[2 * k][3]);
      p[k][2] = PackBf16(score[2 * k + 1][0], score[2 * k + 1][1]);
      p[k][3] = PackBf16(score[2 * k + 1][2], score[2 * k + 1][3]);
    }
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
    const float scale_log2 = r.scale * kLog2E;
    // A warpgroup may have one tile less to see than the other, never more. One without queries walks over all tiles and sees
    // nothing.
    static_assert(kKeyTile == 64 && kGroups == 2 && kStages > 1);
    const int all = work.AllTiles(), own = first < work.queries ? work.Tiles(first + 64) : all;
    const int begin = kRuled ? work.first_tile : 0;  // of both: a tile that one of them does not see adds nothing
    auto stage = [&](int tile) { return StageOf(before + tile - begin); };
    auto parity = [&](int tile) { return ParityOf(before + tile - begin); };
    auto key = [&](int tile) { return stages + stage(tile) * L::kStage; };
    auto release = [&](int tile) {
      if (threadIdx.x % kGroupThreads == 0) barriers.empty[stage(tile)].Arrive();
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
template <int kDim, int kValueDim, bool kRuled>
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
    barriers.empty[threadIdx.x].Init(kGroups);
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
      Attender<kDim, kValueDim, kRuled> attender{r, work};
      attender.Run(group, tiles, queries + group * 64 * kDim, stages, barriers);
    });
  }
}

template <int kDim, int kValueDim>
absl::Status Launch(const AttentionForward& run, int64_t longest, void* stream) {
  auto* kernel = run.rule.plain() ? AttendPrefillHopperKernel<kDim, kValueDim, false> : AttendPrefillHopperKernel<kDim, kValueDim, true>;
  constexpr int kBytes = Layout<kDim, kValueDim>::kBytes;
  Maps maps{};
  auto describe = [&](const void* matrix, int64_t rows, int64_t heads, int64_t dim, int64_t stride, CUtensorMap* map) {
    return DescribeMatrix(matrix, rows, heads * dim, stride, 64, static_cast<int>(dim / kBlockColumns), map);
  };
  absl::Status status = describe(run.q, run.tokens, run.heads, kDim, run.q_stride, &maps.query);
  if (status.ok() && run.keys.pages == nullptr) {
    static_assert(kKeyTile == 64);
    status = describe(run.keys.key, run.keys.tokens, run.kv_heads, kDim, run.keys.key_stride, &maps.key);
    if (status.ok()) status = describe(run.keys.value, run.keys.tokens, run.kv_heads, kValueDim, run.keys.value_stride, &maps.value);
  }
  if (!status.ok()) return status;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  cudaMemsetAsync(run.counter, 0, sizeof(int32_t), static_cast<cudaStream_t>(stream));
  const int64_t works = (longest + kQueryTile - 1) / kQueryTile * run.heads * run.sequences;  // at most
  const auto grid = static_cast<unsigned>(std::min<int64_t>(works, DeviceAttribute(cudaDevAttrMultiProcessorCount)));
  kernel<<<grid, kThreads, kBytes, static_cast<cudaStream_t>(stream)>>>(run, maps);
  return LaunchStatus("AttendPrefill");
}

}  // namespace

bool HopperPrefillTakes(int64_t head_dim, int64_t value_dim, const ScoreRule& rule) {
  const bool widths = head_dim == value_dim ? head_dim == 64 || head_dim == 128 : head_dim == 192 && value_dim == 128;
  return widths && !rule.bends_scores() && IsHopper();
}

absl::Status AttendPrefillHopper(const AttentionForward& run, int64_t longest, void* stream) {
  switch (run.head_dim) {
    case 64: return Launch<64, 64>(run, longest, stream);
    case 128: return Launch<128, 128>(run, longest, stream);
    default: return Launch<192, 128>(run, longest, stream);
  }
}

}  // namespace rein::kernels
