// What both kernels of attention's gradients on a Hopper know: sequences, their tiles, and where the gradients of scores are;
// only for attention_gradient_hopper.cu.

#pragma once

#include "common/kernels/attention_backward.h"
#include "common/kernels/attention_tile.cuh"
#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/ragged.cuh"
#include "common/kernels/warpgroup.cuh"

namespace rein::kernels::gradient {

constexpr int kRows = 64;             // of a tile, of queries as of keys
constexpr int kTile = kRows * kRows;  // elements: of the gradients of its scores
// Of a block of either kernel some warpgroups compute and one more copies, which needs few registers.
constexpr int kGroupThreads = 128, kCopyRegisters = 24;

// Some heads of a run, and where the gradients of their scores are.
struct Gradient {
  AttentionBackward r;
  const float* delta;         // [T, H]
  const int32_t* tile_begin;  // [B]: tiles of the sequences before
  bf16* dscore;               // [tiles, heads here, kTile]: keys by queries, as shared memory has them
  // Where blocks of keys are few, the queries that see them are split among as many blocks, whose sums are then added in order:
  // fp32 [splits, blocks, of keys and of values, kGroups kRows, C], or null for one.
  float* parts;
  int first_kv_head, kv_heads, splits;
  int group;  // heads of a kv head

  __device__ int Window() const { return r.rule.window > 0 ? r.rule.window : 1 << 30; }
};

__host__ __device__ constexpr int TilesOf(int rows) { return (rows + kRows - 1) / kRows; }

// The query of a tile whose gradients stand in a column: a thread has the columns of a product that it writes side by side.
__device__ int OfScores(int column) { return column / 2 % 4 * 16 + column / 32 * 8 + column / 8 % 4 * 2 + column % 2; }

// One sequence: its ranges, and which tiles of it there are.
struct Sequence {
  const Gradient& g;
  int query_begin, queries, key_begin, keys, tile_begin;

  __device__ Sequence(const Gradient& g, int b)
      : g(g), query_begin(g.r.query.begin[b]), queries(LengthOf(g.r.query, b)), key_begin(g.r.key.begin[b]),
        keys(LengthOf(g.r.key, b)), tile_begin(g.tile_begin[b]) {}

  // The tiles of keys that queries of a tile see.
  __device__ int FirstKeyTile(int query_tile) const {
    return g.r.causal ? max(0, query_tile * kRows + 1 - g.Window()) / kRows : 0;
  }
  __device__ int EndKeyTile(int query_tile) const { return g.r.causal ? min(query_tile + 1, TilesOf(keys)) : TilesOf(keys); }
  __device__ bool Has(int query_tile, int key_tile) const {
    return key_tile >= FirstKeyTile(query_tile) && key_tile < EndKeyTile(query_tile);
  }
  // Where the gradients of a tile's scores are. `head` counts from the first one here.
  __device__ bf16* ScoreTile(int query_tile, int key_tile, int head) const {
    const int before = g.r.causal ? query_tile * (query_tile + 1) / 2 : query_tile * TilesOf(keys);
    return g.dscore + (static_cast<int64_t>(tile_begin + before + key_tile) * (g.kv_heads * g.group) + head) * kTile;
  }
};

struct Maps {
  CUtensorMap query, dout, key, value;
};

}  // namespace rein::kernels::gradient
