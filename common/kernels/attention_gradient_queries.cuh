// dq from the gradients of scores: a block owns two tiles of queries of a head for each warpgroup; only for attention_gradient_hopper.cu.

#pragma once

#include "common/kernels/attention_gradient_tiles.cuh"

namespace rein::kernels::gradient {

template <int kDim>
struct QueryLayout {
  static constexpr int kGroups = kDim == 128 ? 3 : 2, kTiles = 2 * kGroups;
  static constexpr int kThreads = (kGroups + 1) * kGroupThreads, kRegisters = kDim == 128 ? 160 : 208;
  static_assert(kThreads / kGroupThreads * (65536 / kThreads / 8 * 8) >= kCopyRegisters + kGroups * kRegisters);
  static constexpr int kStages = kDim == 128 ? 3 : 4;
  static constexpr int kKeys = kRows * kDim, kStage = kKeys + kTiles * kTile;
  static constexpr int kBytes = kStages * kStage * 2 + 1024;
};

template <int kDim>
struct QueryBarriers {
  Barrier full[QueryLayout<kDim>::kStages], empty[QueryLayout<kDim>::kStages];
};

// What a block goes over: the tiles of keys that any of its queries sees.
struct KeyTiles {
  int begin, end;

  __device__ KeyTiles(const Sequence& s, int first_tile, int query_tiles)
      : begin(s.FirstKeyTile(first_tile)), end(s.EndKeyTile(first_tile + query_tiles - 1)) {}
};

template <int kDim>
__device__ void FetchScores(const Maps& maps, const Sequence& s, const KeyTiles& tiles, int first_tile, int query_tiles, int head, int kv_head,
                            bf16* stages, QueryBarriers<kDim>& barriers) {
  using L = QueryLayout<kDim>;
  for (int i = 0; i < tiles.end - tiles.begin; ++i) {
    const int stage = i % L::kStages, key_tile = tiles.begin + i;
    if (i >= L::kStages) barriers.empty[stage].Wait(i / L::kStages % 2 ^ 1);
    int count = 0;
    for (int t = 0; t < query_tiles; ++t) count += s.Has(first_tile + t, key_tile);
    Barrier& full = barriers.full[stage];
    full.Expect(2 * (L::kKeys + count * kTile));
    bf16* to = stages + stage * L::kStage;
    FetchBlocks(maps.key, kv_head * (kDim / kBlockColumns), s.key_begin + key_tile * kRows, to, full);
    for (int t = 0; t < query_tiles; ++t) {
      if (!s.Has(first_tile + t, key_tile)) continue;
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
                       SharedAddress(to + L::kKeys + t * kTile)),
                   "l"(s.ScoreTile(first_tile + t, key_tile, head)), "n"(2 * kTile), "r"(SharedAddress(&full.state))
                   : "memory");
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(QueryLayout<kDim>::kThreads, 1) QueryGradientHopperKernel(Gradient g, const __grid_constant__ Maps maps) {
  using L = QueryLayout<kDim>;
  constexpr int kBlocks = kDim / 64, kOwn = L::kTiles / L::kGroups;
  extern __shared__ bf16 unaligned[];
  __shared__ QueryBarriers<kDim> barriers;
  bf16* stages = reinterpret_cast<bf16*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023});
  const int heads = g.kv_heads * g.group, head = static_cast<int>(blockIdx.x) % heads;  // from the first one here
  const Sequence s(g, static_cast<int>(blockIdx.x) / heads);
  const int first_tile = static_cast<int>(gridDim.y - 1 - blockIdx.y) * L::kTiles;  // the longest work first
  const int query_tiles = min(L::kTiles, TilesOf(s.queries) - first_tile);
  if (query_tiles <= 0) return;
  if (threadIdx.x < L::kStages) {
    barriers.full[threadIdx.x].Init(1);
    barriers.empty[threadIdx.x].Init(L::kGroups * kGroupThreads / 32);
  }
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  __syncthreads();
  const KeyTiles tiles(s, first_tile, query_tiles);
  const int kv_head = g.first_kv_head + head / g.group;
  const int group = __shfl_sync(~0u, threadIdx.x / kGroupThreads, 0);
  if (group == L::kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCopyRegisters));
    if (threadIdx.x % kGroupThreads == 0) FetchScores<kDim>(maps, s, tiles, first_tile, query_tiles, head, kv_head, stages, barriers);
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(L::kRegisters));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, own = group * kOwn;
  float dq[kOwn][kBlocks][8][4] = {};
  for (int i = 0; i < tiles.end - tiles.begin; ++i) {
    const int stage = i % L::kStages;
    const bf16* keys = stages + stage * L::kStage;
    const uint64_t of_key = Descriptor(keys, kRows * 128), of_score = Descriptor(keys + L::kKeys + own * kTile, kRows * 128);
    barriers.full[stage].Wait(i / L::kStages % 2);
#pragma unroll
    for (int t = 0; t < kOwn; ++t) {
      if (!s.Has(first_tile + own + t, tiles.begin + i)) continue;
      Pin(dq[t]);
      FenceProducts();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        AddValues<kBlocks>(dq[t], Behind(of_score, 2 * (t * kTile + k * 16 * 64)), Behind(of_key, 2 * k * 16 * 64));
      }
      CommitProducts();
    }
    WaitForProducts<0>();
    Pin(dq);
    if (lane == 0) barriers.empty[stage].Arrive();
  }
#pragma unroll
  for (int t = 0; t < kOwn; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int query = (first_tile + own + t) * kRows + OfScores(warp * 16 + lane / 4 + 8 * i);
      if (query >= s.queries) continue;
      bf16* row = static_cast<bf16*>(g.r.dq) + ((s.query_begin + static_cast<int64_t>(query)) * g.r.heads + g.first_kv_head * g.group + head) * kDim;
#pragma unroll
      for (int n = 0; n < kBlocks * 8; ++n) {
        *reinterpret_cast<uint32_t*>(row + n * 8 + lane % 4 * 2) =
            PackBf16(dq[t][n / 8][n % 8][i * 2] * g.r.scale, dq[t][n / 8][n % 8][i * 2 + 1] * g.r.scale);
      }
    }
  }
}

}  // namespace rein::kernels::gradient
