// dk, dv and the gradients of scores: a block owns kGroups tiles of keys of a kv head; only for attention_gradient_hopper.cu.

#pragma once

#include <cmath>

#include "common/kernels/attention_gradient_tiles.cuh"
#include "common/kernels/attention_tile.cuh"

namespace rein::kernels::gradient {

constexpr int kGroups = 2, kThreads = (kGroups + 1) * kGroupThreads, kComputeRegisters = 240;
static_assert(kCopyRegisters + kGroups * kComputeRegisters <= (kGroups + 1) * 168);

enum class ScoreKind { kPlain, kSloped, kCapped };  // what a rule does to them: nothing, ALiBi's slopes, a cap and any slopes

// The block of this block's place, of a split.
__device__ int64_t BlockOfPart(int split) { return (split * static_cast<int64_t>(gridDim.y) + blockIdx.y) * gridDim.x + blockIdx.x; }

template <int kDim>
struct KeyLayout {
  static constexpr int kStages = 4;
  static constexpr int kMatrix = kRows * kDim;  // elements of a tile of anything
  static constexpr int kOwn = 2 * kGroups * kMatrix, kStage = 2 * kMatrix;
  static constexpr int kBytes = (kOwn + kStages * kStage) * 2 + kStages * 2 * kRows * 4 + 1024;
};

template <int kStages>
struct KeyBarriers {
  Barrier own_full, full[kStages], empty[kStages];
};

// The tiles of queries that see a block of keys, head by head, and which of them this block goes over.
struct QueryTiles {
  int begin, count, first, end;

  __device__ QueryTiles(const Sequence& s, int first_key, int split) {
    const int all = TilesOf(s.queries);
    begin = s.g.r.causal ? min(first_key / kRows, all) : 0;
    const int64_t last = int64_t{first_key} + kGroups * kRows - 1 + s.g.Window();  // the first query that sees no key here
    count = max(0, (s.g.r.causal ? static_cast<int>(min(int64_t{all}, (last + kRows - 1) / kRows)) : all) - begin);
    const int64_t total = int64_t{count} * s.g.group;
    first = static_cast<int>(total * split / s.g.splits);
    end = static_cast<int>(total * (split + 1) / s.g.splits);
  }

  // Calls body(stage, parity, head of the group, tile of queries, whether more follow) for each.
  template <int kStages, typename Body>
  __device__ void ForEach(Body body) const {
    if (first == end) return;
    int stage = 0, parity = 0, head = first / count, tile = begin + first % count;
    for (int at = first; at < end; ++at) {
      body(stage, parity, head, tile, at + 1 < end);
      if (++stage == kStages) stage = 0, parity ^= 1;
      if (++tile == begin + count) tile = begin, ++head;
    }
  }
};

// The compiler no longer sees where these pointers come from.
__device__ inline float2 LoadShared2(const float* from) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];\n" : "=f"(x.x), "=f"(x.y) : "r"(SharedAddress(from)));
  return x;
}

// By one warp.
template <int kDim>
__device__ void FetchQueries(const Gradient& g, const Maps& maps, const Sequence& s, const QueryTiles& tiles, int first_key, int kv_head,
                             bf16* own, bf16* stages, float* sums, KeyBarriers<KeyLayout<kDim>::kStages>& barriers) {
  using L = KeyLayout<kDim>;
  constexpr int kBlocks = kDim / kBlockColumns;
  const int lane = threadIdx.x % 32;
  if (lane == 0) {
    barriers.own_full.Expect(2 * L::kOwn);
    for (int group = 0; group < kGroups; ++group) {
      const int row = s.key_begin + first_key + group * kRows;
      FetchBlocks(maps.key, kv_head * kBlocks, row, own + group * L::kMatrix, barriers.own_full);
      FetchBlocks(maps.value, kv_head * kBlocks, row, own + (kGroups + group) * L::kMatrix, barriers.own_full);
    }
  }
  bool again = false;  // the stages were all used before
  tiles.template ForEach<L::kStages>([&](int stage, int parity, int of_group, int tile, bool) {
    const int head = kv_head * g.group + of_group, first = tile * kRows;
    float lse[2], delta[2];  // of queries behind the last one: their weights are 0
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int query = first + lane + 32 * j;
      const int64_t unit = (s.query_begin + static_cast<int64_t>(query)) * g.r.heads + head;
      lse[j] = query < s.queries ? g.r.lse[unit] * kLog2E : INFINITY;
      delta[j] = query < s.queries ? g.delta[unit] : 0.0f;
    }
    again |= parity == 1;
    if (again) barriers.empty[stage].Wait(parity ^ 1);
    if (lane == 0) {
      bf16* to = stages + stage * L::kStage;
      barriers.full[stage].Expect(2 * L::kStage);
      FetchBlocks(maps.query, head * kBlocks, s.query_begin + first, to, barriers.full[stage]);
      FetchBlocks(maps.dout, head * kBlocks, s.query_begin + first, to + L::kMatrix, barriers.full[stage]);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      sums[stage * 2 * kRows + lane + 32 * j] = lse[j];
      sums[stage * 2 * kRows + kRows + lane + 32 * j] = delta[j];
    }
    barriers.full[stage].Arrive();
  });
}

// One computing warpgroup; scores are keys by queries.
template <int kDim, ScoreKind kKind>
struct KeyGradient {
  using L = KeyLayout<kDim>;
  static constexpr int kBlocks = kDim / 64;

  const Gradient& g;
  const Sequence& s;
  const QueryTiles& tiles;
  const int first_key, kv_head;  // the warpgroup's own
  // Tiles of queries that see some of the keys; and those of them that see all.
  int begin = 0, end = 1 << 30, all_begin = 0, all_end = 1 << 30;
  float dk[kBlocks][8][4] = {}, dv[kBlocks][8][4] = {};
  float score[8][4], dweight[8][4];
  uint32_t weight[4][4], dscore[4][4];

  __device__ KeyGradient(const Gradient& g, const Sequence& s, const QueryTiles& tiles, int first_key, int kv_head)
      : g(g), s(s), tiles(tiles), first_key(first_key), kv_head(kv_head) {
    if (first_key >= s.keys) {
      end = 0;
    } else if (g.r.causal) {
      begin = first_key / kRows;
      all_begin = begin + 1;
      all_end = (first_key + g.Window()) / kRows;
      end = (first_key + kRows - 1 + g.Window() + kRows - 1) / kRows;
    } else if (first_key + kRows > s.keys) {
      all_begin = 1 << 30;
    }
  }

  // a[64 x kDim] b[64 x kDim]^T
  __device__ static void Start(float (&to)[8][4], uint64_t a, uint64_t b) {
    FenceProducts();
    BeginScores(to, a, b);
#pragma unroll
    for (int k = 1; k < kDim / 16; ++k) {
      const int bytes = 2 * (k / 4 * kRows * 64 + k % 4 * 16);
      MultiplyScores(to, Behind(a, bytes), Behind(b, bytes), 1);
    }
    CommitProducts();
  }
  // to[64 x kDim] += a[64 x 64] b[64 x kDim]
  __device__ static void Add(float (&to)[kBlocks][8][4], uint32_t (&a)[4][4], uint64_t b) {
    Pin(a);
    Pin(to);
    FenceProducts();
#pragma unroll
    for (int k = 0; k < 4; ++k) AddValues<kBlocks>(to, a[k], Behind(b, 2 * k * 16 * 64));
    CommitProducts();
  }
  template <int kCount>
  __device__ static void Pack(const float (&x)[8][4], uint32_t (&to)[4][4], int first) {
#pragma unroll
    for (int k = first; k < first + kCount; ++k) PackLeft(x[2 * k], x[2 * k + 1], to[k]);
  }

  // What a thread's columns need of the sums of queries.
  template <int kCount>
  __device__ static void Load(const float* sums, float2 (&to)[kCount]) {
#pragma unroll
    for (int n = 0; n < kCount; ++n) to[n] = LoadShared2(sums + n * 8 + threadIdx.x % 4 * 2);
  }

  // Scores become weights, for `weight`, and what the gradient of the weights is to be multiplied by.
  __device__ void Weigh(int query_tile, int head, const float2 (&lse)[8]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int key = first_key + warp * 16 + lane / 4;
    const ScoreTerms terms(g.r.rule, g.r.scale);
    const float slope_log2 = kKind == ScoreKind::kPlain ? 0.0f : ScoreTerms::SlopeLog2(g.r.rule, head);
    float flatness[kKind == ScoreKind::kCapped ? 8 : 1][4];
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float dot = score[n][i], own_lse = i % 2 == 0 ? lse[n].x : lse[n].y;
        const int distance = key + 8 * (i / 2) - (query_tile * kRows + n * 8 + lane % 4 * 2 + i % 2);
        if constexpr (kKind == ScoreKind::kPlain) {
          score[n][i] = PowerOfTwoOf(dot * terms.scale_log2 - own_lse);
        } else if constexpr (kKind == ScoreKind::kSloped) {
          score[n][i] = PowerOfTwoOf(__fmaf_rn(slope_log2, static_cast<float>(distance), __fmul_rn(dot, terms.scale_log2)) - own_lse);
        } else {
          const float t = terms.Tanh(dot);
          score[n][i] = PowerOfTwoOf(__fmaf_rn(slope_log2, static_cast<float>(distance), __fmul_rn(terms.cap_log2, t)) - own_lse);
          flatness[n][i] = 1.0f - t * t;
        }
      }
    }
    if (query_tile < all_begin || query_tile >= all_end) {
      const unsigned window = static_cast<unsigned>(g.Window());
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int own_key = key + 8 * (i / 2);
        // The first query that sees the key, less the place of this one.
        const int first = (g.r.causal ? own_key : own_key < s.keys ? 0 : 1 << 30) - (query_tile * kRows + lane % 4 * 2 + i % 2);
#pragma unroll
        for (int n = 0; n < 8; ++n) score[n][i] = static_cast<unsigned>(n * 8 - first) < window ? score[n][i] : 0.0f;
      }
    }
    Pack<4>(score, weight, 0);
    if constexpr (kKind == ScoreKind::kCapped) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) score[n][i] *= flatness[n][i];
      }
    }
  }

  // Half of the queries: registers are short.
  __device__ void Differentiate(int half, const float2 (&delta)[4]) {
#pragma unroll
    for (int n = 4 * half; n < 4 * half + 4; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) score[n][i] *= dweight[n][i] - (i % 2 == 0 ? delta[n % 4].x : delta[n % 4].y);
    }
    Pack<2>(score, dscore, 2 * half);
  }

  // The gradients of a tile's scores, a thread's part: OfScores() says which query each column is.
  __device__ void Store(bf16* to) {
    const int row = threadIdx.x % kGroupThreads / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      bf16* piece = to + SwizzledPiece(row + j % 2 * 8, (j / 2 * 4 + threadIdx.x % 4) * 8);
      *reinterpret_cast<uint4*>(piece) = {dscore[0][j], dscore[1][j], dscore[2][j], dscore[3][j]};
    }
  }

  __device__ void Run(const bf16* own_key, const bf16* own_value, const bf16* stages, const float* sums,
                      KeyBarriers<L::kStages>& barriers) {
    const int lane = threadIdx.x % 32, key_tile = first_key / kRows;
    const uint64_t of_key = Descriptor(own_key, 0), of_value = Descriptor(own_value, 0);
    barriers.own_full.Wait(0);
    Pin(dk);
    Pin(dv);
    float2 lse[8], delta[4];  // of the queries of this thread's columns
    auto fetch = [&](int stage, int parity) {
      barriers.full[stage].Wait(parity);
      Load(sums + stage * 2 * kRows, lse);
    };
    if (tiles.first < tiles.end) fetch(0, 0);
    tiles.template ForEach<L::kStages>([&](int stage, int parity, int of_group, int query_tile, bool more) {
      const int next = stage + 1 < L::kStages ? stage + 1 : 0, next_parity = next > 0 ? parity : parity ^ 1;
      if (query_tile < begin || query_tile >= end) {  // of the other warpgroup's keys alone
        if (more) fetch(next, next_parity);
        if (lane == 0) barriers.empty[stage].Arrive();
        return;
      }
      const bf16 *query = stages + stage * L::kStage, *dout = query + L::kMatrix;
      Start(score, of_key, Descriptor(query, 0));
      Start(dweight, of_value, Descriptor(dout, 0));
      WaitForProducts<1>();
      Pin(score);
      Weigh(query_tile, kv_head * g.group + of_group, lse);
      const float* of_delta = sums + (stage * 2 + 1) * kRows;
      Load(of_delta, delta);
      Add(dv, weight, Descriptor(dout, kRows * 128));
      WaitForProducts<1>();
      Pin(dweight);
      Differentiate(0, delta);
      Load(of_delta + kRows / 2, delta);
      Differentiate(1, delta);
      Add(dk, dscore, Descriptor(query, kRows * 128));
      Store(s.ScoreTile(query_tile, key_tile, (kv_head - g.first_kv_head) * g.group + of_group));
      if (more) fetch(next, next_parity);
      WaitForProducts<0>();
      Pin(dk);
      Pin(dv);
      if (lane == 0) barriers.empty[stage].Arrive();
    });
    if (g.parts == nullptr) {
      Write(dk, g.r.dk, g.r.scale);
      Write(dv, g.r.dv, 1.0f);
    } else {
      WritePart(dk, 0);
      WritePart(dv, 1);
    }
  }

  __device__ void Write(const float (&sum)[kBlocks][8][4], void* to, float scale) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int key = first_key + warp * 16 + lane / 4 + 8 * i;
      if (key >= s.keys) continue;
      bf16* row = static_cast<bf16*>(to) + ((s.key_begin + static_cast<int64_t>(key)) * g.r.kv_heads + kv_head) * kDim;
#pragma unroll
      for (int n = 0; n < kBlocks * 8; ++n) {
        *reinterpret_cast<uint32_t*>(row + n * 8 + lane % 4 * 2) =
            PackBf16(sum[n / 8][n % 8][i * 2] * scale, sum[n / 8][n % 8][i * 2 + 1] * scale);
      }
    }
  }
  __device__ void WritePart(const float (&sum)[kBlocks][8][4], int which) {
    const int lane = threadIdx.x % 32, row = first_key % (kGroups * kRows) + threadIdx.x / 32 % 4 * 16 + lane / 4;
    float* to = g.parts + ((BlockOfPart(blockIdx.z) * 2 + which) * kGroups * kRows + row) * kDim;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int n = 0; n < kBlocks * 8; ++n) {
        *reinterpret_cast<float2*>(to + i * 8 * kDim + n * 8 + lane % 4 * 2) = {sum[n / 8][n % 8][i * 2], sum[n / 8][n % 8][i * 2 + 1]};
      }
    }
  }
};

// Blocks: kv heads of sequences; tiles of keys, of which the first have the most to do; splits.
template <int kDim, ScoreKind kKind>
__global__ void __launch_bounds__(kThreads, 1) KeyGradientHopperKernel(Gradient g, const __grid_constant__ Maps maps) {
  using L = KeyLayout<kDim>;
  extern __shared__ bf16 unaligned[];
  __shared__ KeyBarriers<L::kStages> barriers;
  bf16* own = reinterpret_cast<bf16*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023});
  bf16* stages = own + L::kOwn;
  float* sums = reinterpret_cast<float*>(stages + L::kStages * L::kStage);
  const int kv_head = g.first_kv_head + static_cast<int>(blockIdx.x) % g.kv_heads, first_key = static_cast<int>(blockIdx.y) * kGroups * kRows;
  const Sequence s(g, static_cast<int>(blockIdx.x) / g.kv_heads);
  if (first_key >= s.keys) return;
  if (threadIdx.x == 0) {
    barriers.own_full.Init(1);
    for (int i = 0; i < L::kStages; ++i) {
      barriers.full[i].Init(1 + 32);
      barriers.empty[i].Init(kGroups * kGroupThreads / 32);
    }
  }
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  __syncthreads();
  const QueryTiles tiles(s, first_key, static_cast<int>(blockIdx.z));
  const int group = __shfl_sync(~0u, threadIdx.x / kGroupThreads, 0);
  if (group == kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCopyRegisters));
    if (threadIdx.x % kGroupThreads < 32) FetchQueries<kDim>(g, maps, s, tiles, first_key, kv_head, own, stages, sums, barriers);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kComputeRegisters));
    KeyGradient<kDim, kKind> gradient(g, s, tiles, first_key + group * kRows, kv_head);
    gradient.Run(own + group * L::kMatrix, own + (kGroups + group) * L::kMatrix, stages, sums, barriers);
  }
}

// Adds the parts of each block of keys; blocks as above, without splits.
template <int kDim>
__global__ void AddPartsKernel(Gradient g) {
  const int kv_head = g.first_kv_head + static_cast<int>(blockIdx.x) % g.kv_heads, first_key = static_cast<int>(blockIdx.y) * kGroups * kRows;
  const Sequence s(g, static_cast<int>(blockIdx.x) / g.kv_heads);
  constexpr int kMatrix = kGroups * kRows * kDim;
  const int live = min(kGroups * kRows, s.keys - first_key) * kDim;
  for (int at = 2 * static_cast<int>(threadIdx.x); at < live; at += 2 * static_cast<int>(blockDim.x)) {
    const int64_t row = s.key_begin + first_key + at / kDim, to = (row * g.r.kv_heads + kv_head) * kDim + at % kDim;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      float2 sum = {};
      for (int split = 0; split < g.splits; ++split) {
        const float2 part = *reinterpret_cast<const float2*>(g.parts + (BlockOfPart(split) * 2 + which) * kMatrix + at);
        sum.x += part.x;
        sum.y += part.y;
      }
      const float scale = which == 0 ? g.r.scale : 1.0f;
      *reinterpret_cast<uint32_t*>(static_cast<bf16*>(which == 0 ? g.r.dk : g.r.dv) + to) = PackBf16(sum.x * scale, sum.y * scale);
    }
  }
}

}  // namespace rein::kernels::gradient
