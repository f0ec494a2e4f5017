#include "common/kernels/attention.h"

#include <algorithm>

#include "common/kernels/attention_hopper.h"
#include "common/kernels/attention_tile.cuh"
#include "common/kernels/fp8.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kTilesPerChunk = kKeyChunk / kKeyTile;
constexpr int kNoWindow = 1 << 30;

// Goes over one tile of keys or values in pieces of kPiece elements, shared by kThreads threads of which `thread` is this
// one's number: body(row, column, element of the source, whether the row is within the context). first_token[g] is where
// group g of the tile lies.
template <int kDim, int kPiece, int kThreads, typename Body>
__device__ void ForPieces(const int64_t (&first_token)[kGroupsPerTile], int64_t stride, int64_t head, int rows, int thread,
                          Body body) {
  constexpr int kPieces = kDim / kPiece;
#pragma unroll
  for (int i = 0; i < kKeyTile * kPieces / kThreads; ++i) {
    const int piece = i * kThreads + thread, row = piece / kPieces, column = piece % kPieces * kPiece;
    const bool live = row < rows;
    int64_t token = first_token[0];
#pragma unroll
    for (int g = 1; g < kGroupsPerTile; ++g) {
      if (row / kKeyGroup == g) token = first_token[g];
    }
    token += row % kKeyGroup;
    body(row, column, head * kDim + (live ? token * stride + column : 0), live);
  }
}

// Copies a tile into shared memory, in the background, as it is: rows kStride elements apart, zeros beyond the context.
template <typename Element, int kDim, int kStride, int kThreads>
__device__ void CopyTile(const int64_t (&first_token)[kGroupsPerTile], const void* from, int64_t stride,
                         int64_t head, int rows, int thread, Element* to) {
  ForPieces<kDim, 16 / sizeof(Element), kThreads>(
      first_token, stride, head, rows, thread, [&](int row, int column, int64_t element, bool live) {
        CopyAsync16(to + row * kStride + column, static_cast<const Element*>(from) + element, live);
      });
}

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

// The same by one warp, from shared memory, where rows of fp8 stand side by side.
template <int kDim>
__device__ void ExpandTile(const uint8_t* from, int lane, bf16* to) {
#pragma unroll
  for (int i = 0; i < kKeyTile * kDim / 8 / 32; ++i) {
    const int piece = i * 32 + lane, row = piece / (kDim / 8), column = piece % (kDim / 8) * 8;
    *reinterpret_cast<uint4*>(to + row * kTileStride<kDim> + column) =
        Bf16OfFp8(reinterpret_cast<const uint2*>(from)[piece]);
  }
}

// ---- prefill: a block of warps holds kQueryTile queries of one head --------------------------------

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
    bf16* out = static_cast<bf16*>(r.out) + ((begin + query[i]) * r.heads + head) * kDim;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + n * 8 + lane % 4 * 2) =
          PackBf16(__fdiv_rn(total_out[n][i * 2], total_sum[i]),
                   __fdiv_rn(total_out[n][i * 2 + 1], total_sum[i]));
    }
    if (r.lse != nullptr && lane % 4 == 0) {
      r.lse[head * r.lse_head_stride + (begin + query[i]) * r.lse_token_stride] =
          (total_max[i] + log2f(total_sum[i])) * 0.693147180559945309f;
    }
  }
}

// ---- decode: a warp holds the queries of one kv head of one sequence, or of neighbours that share the keys,
// ---- and walks over one chunk; where more queries than a warp holds share a kv head, several warps do

constexpr int kDecodeRows = 16;  // queries of a warp

// Neighbours whose queries fit one warp.
__host__ __device__ inline int MostSiblings(int64_t heads, int64_t kv_heads) {
  const auto group = static_cast<int>(heads / kv_heads);
  return group < kDecodeRows ? kDecodeRows / group : 1;
}

// Chunk `chunk` of `siblings` sequences from `sequence` on.
struct DecodeItem {
  int32_t sequence, chunk, siblings;
};

// The items of a step, and what the chunks leave: sums for each chunk of each sequence.
struct DecodeScratch {
  int32_t* items;        // how many
  int32_t* first_chunk;  // [B + 1]: where each sequence's sums begin
  DecodeItem* item;      // [most_chunks]
  float* max;            // [most_chunks, H]
  float* sum;            // [most_chunks, H]
  float* out;            // [most_chunks, H, C]
};

DecodeScratch Cut(void* scratch, int64_t most_chunks, int64_t sequences, int64_t heads) {
  auto aligned = [](int64_t n) { return (n + 63) / 64 * 64; };
  DecodeScratch cut;
  cut.items = static_cast<int32_t*>(scratch);
  cut.first_chunk = cut.items + aligned(1);
  cut.item = reinterpret_cast<DecodeItem*>(cut.first_chunk + aligned(sequences + 1));
  cut.max = reinterpret_cast<float*>(cut.item + aligned(most_chunks));
  cut.sum = cut.max + aligned(most_chunks * heads);
  cut.out = cut.sum + aligned(most_chunks * heads);
  return cut;
}

// Lists the items of a step. One block of kListThreads, a sequence for each thread.
constexpr int kListThreads = 512;

__global__ void ListItemsKernel(DecodePlan plan, DecodeScratch s) {
  __shared__ int chunks_to[kListThreads], items_to[kListThreads];  // sums up to and with this sequence
  __shared__ int shared_of[kListThreads];
  const int own = threadIdx.x, sequences = static_cast<int>(plan.sequences);
  const int most_siblings = MostSiblings(plan.heads, plan.kv_heads);
  const int most_chunks = static_cast<int>(plan.most_chunks);
  int chunks_before = 0, items_before = 0;
  for (int first = 0; first < sequences; first += kListThreads) {
    const int b = first + own;
    const int context = b < sequences ? plan.context[b] : 0;
    const int chunks = (context + kKeyChunk - 1) / kKeyChunk;
    // Whole chunks that the sequence before it, in the same set of possible siblings, takes along.
    int shared = 0;
    if (plan.shared != nullptr && b < sequences && own % most_siblings != 0) {
      shared = min(plan.shared[b], min(context, plan.context[b - 1])) / kKeyChunk;
    }
    chunks_to[own] = chunks;
    __syncthreads();
    for (int offset = 1; offset < kListThreads; offset *= 2) {
      const int add = own >= offset ? chunks_to[own - offset] : 0;
      __syncthreads();
      chunks_to[own] += add;
      __syncthreads();
    }
    const int end = min(chunks_before + chunks_to[own], most_chunks);
    const int begin = min(chunks_before + chunks_to[own] - chunks, most_chunks);
    shared_of[own] = shared = min(shared, end - begin);
    items_to[own] = end - begin - shared;
    __syncthreads();
    for (int offset = 1; offset < kListThreads; offset *= 2) {
      const int add = own >= offset ? items_to[own - offset] : 0;
      __syncthreads();
      items_to[own] += add;
      __syncthreads();
    }
    const int items_end = items_before + items_to[own];
    if (b < sequences) {
      s.first_chunk[b] = begin;
      if (b == sequences - 1) s.first_chunk[sequences] = end, *s.items = items_end;
      const int set_end = min((own / most_siblings + 1) * most_siblings, kListThreads);
      for (int chunk = shared; chunk < end - begin; ++chunk) {
        int siblings = 1;
        while (own + siblings < set_end && shared_of[own + siblings] > chunk) ++siblings;
        s.item[items_end - (end - begin) + chunk] = {b, chunk, siblings};
      }
    }
    chunks_before += chunks_to[kListThreads - 1];
    items_before += items_to[kListThreads - 1];
    __syncthreads();
  }
}

// Per warp: a ring of tiles of keys and of values as they are in memory; of fp8 also one of each in bf16.
template <int kDim, bool kFp8>
struct DecodeLayout {
  using Element = std::conditional_t<kFp8, uint8_t, bf16>;
  static constexpr int kWarps = kDim > 128 ? 2 : 4;  // at most: as many as shared memory holds
  static constexpr int kStride = kFp8 ? kDim : kTileStride<kDim>;
  static constexpr int kTile = kKeyTile * kStride;
  static constexpr int kStages = kFp8 ? 2 : 3;
  static constexpr int kExpanded = kKeyTile * kTileStride<kDim>;
  static constexpr int kWarpBytes = kStages * kTile * static_cast<int>(sizeof(Element)) + (kFp8 ? 2 * kExpanded * 2 : 0);
};

template <int kDim, bool kRuled, bool kFp8>
__global__ void __launch_bounds__(32 * DecodeLayout<kDim, kFp8>::kWarps)
    AttendDecodeKernel(AttentionForward r, DecodeScratch s) {
  using L = DecodeLayout<kDim, kFp8>;
  using Element = typename L::Element;
  extern __shared__ __align__(16) bf16 shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto* ring = reinterpret_cast<Element*>(reinterpret_cast<uint8_t*>(shared) + warp * L::kWarpBytes);
  const int group = static_cast<int>(r.heads / r.kv_heads);
  const int parts = (group + kDecodeRows - 1) / kDecodeRows, part_rows = min(group, kDecodeRows);  // of a group
  const int units = static_cast<int>(r.kv_heads) * parts;
  const int items = *s.items * units;
  const ScoreTerms terms(r.rule, r.scale);
  // Few items are spread over many processors.
  for (int item = warp * gridDim.x + blockIdx.x; item < items; item += gridDim.x * blockDim.x / 32) {
    const int kv_head = item % units / parts, part = item % parts;
    const auto [b, chunk_index, siblings] = s.item[item / units];
    const int context = r.context[b], first_key = chunk_index * kKeyChunk;
    const int tiles = (min(context - first_key, kKeyChunk) + kKeyTile - 1) / kKeyTile;
    int first_tile = 0;
    if (kRuled && r.rule.window > 0) {  // of the one that sees furthest back
      int shortest = context;
      for (int n = 1; n < siblings; ++n) shortest = min(shortest, r.context[b + n]);
      first_tile = max(0, shortest - r.rule.window - first_key) / kKeyTile;
      if (first_tile >= tiles) continue;
    }
    const KeyRows rows{r.keys, b, context};
    // Lane g knows where group g of the chunk lies.
    const int64_t own_group = rows.FirstToken(first_key / kKeyGroup + lane % (kKeyChunk / kKeyGroup));
    // Pieces 2 t and 2 t + 1 of the ring are the keys and the values of tile t.
    auto fetch = [&](int piece) {
      if (piece < 2 * tiles) {
        const bool values = piece % 2 == 1;
        int64_t first_token[kGroupsPerTile];
#pragma unroll
        for (int g = 0; g < kGroupsPerTile; ++g) {
          first_token[g] = __shfl_sync(~0u, own_group, piece / 2 * kGroupsPerTile + g);
        }
        CopyTile<Element, kDim, L::kStride, 32>(first_token, values ? r.keys.value : r.keys.key,
                                                values ? r.keys.value_stride : r.keys.key_stride, kv_head,
                                                context - first_key - piece / 2 * kKeyTile, lane,
                                                ring + piece % L::kStages * L::kTile);
      }
      CommitCopies();
    };
    // Rows are the query heads of the first sequence, of the second, ...
    uint32_t q_fragment[kDim / 16][4];
    int sequence[2], head[2];
    bool live[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4 + 8 * i, of_group = part * kDecodeRows + row % part_rows;
      sequence[i] = b + row / part_rows;
      head[i] = kv_head * group + of_group;
      live[i] = row / part_rows < siblings && of_group < group;
    }
    TileRows seen;  // of the chunk
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      seen.visible[i] = context - first_key;
      if constexpr (kRuled) {
        if (!live[i]) continue;
        seen.visible[i] = r.context[sequence[i]] - first_key;
        if (r.rule.window > 0) seen.hidden[i] = seen.visible[i] - r.rule.window;
        seen.slope_log2[i] = ScoreTerms::SlopeLog2(r.rule, head[i]);
      }
    }
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bf16* at = static_cast<const bf16*>(r.q) + sequence[i % 2] * r.q_stride +
                         head[i % 2] * kDim + k * 16 + i / 2 * 8 + lane % 4 * 2;
        q_fragment[k][i] = live[i % 2] ? *reinterpret_cast<const uint32_t*>(at) : 0;
      }
    }
    __syncwarp();
    fetch(2 * first_tile);
    fetch(2 * first_tile + 1);
    ChunkState<kDim> chunk;
    chunk.Reset();
    for (int tile = first_tile; tile < tiles; ++tile) {
      TileRows at = seen;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        at.visible[i] -= tile * kKeyTile;
        if constexpr (kRuled) at.hidden[i] -= tile * kKeyTile;
      }
      if constexpr (kFp8) {
        // What is expanded makes room for what comes.
        bf16* expanded = reinterpret_cast<bf16*>(ring + L::kStages * L::kTile);
#pragma unroll
        for (int piece = 0; piece < 2; ++piece) {
          WaitForCopies<1>();
          __syncwarp();
          ExpandTile<kDim>(ring + piece * L::kTile, lane, expanded + piece * L::kExpanded);
          __syncwarp();
          fetch(2 * tile + 2 + piece);
        }
        AddTile<kDim, kRuled>(q_fragment, expanded, expanded + L::kExpanded, at, terms, chunk);
        __syncwarp();
      } else {
        fetch(2 * tile + 2);
        WaitForCopies<1>();
        __syncwarp();
        AddTile<kDim, kRuled>(q_fragment, ring + 2 * tile % L::kStages * L::kTile,
                              ring + (2 * tile + 1) % L::kStages * L::kTile, at, terms, chunk);
        __syncwarp();
        fetch(2 * tile + 3);
      }
    }
    WaitForCopies<0>();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float sum = RowSum(chunk.sum[i]);
      if (!live[i]) continue;
      const int64_t at = (s.first_chunk[sequence[i]] + chunk_index) * r.heads + head[i];
      if (lane % 4 == 0) {
        s.max[at] = chunk.max[i];
        s.sum[at] = sum;
      }
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        *reinterpret_cast<float2*>(s.out + at * kDim + n * 8 + lane % 4 * 2) =
            make_float2(chunk.out[n][i * 2], chunk.out[n][i * 2 + 1]);
      }
    }
  }
}

// One warp adds the chunks of one head of one sequence.
template <int kDim>
__global__ void AddChunksKernel(AttentionForward r, DecodeScratch s) {
  const int64_t unit = blockIdx.x * 4 + threadIdx.x / 32;
  if (unit >= r.sequences * r.heads) return;
  const int64_t b = unit / r.heads, head = unit % r.heads;
  const int lane = threadIdx.x % 32;
  constexpr int kCount = kDim / 32;
  constexpr int kAtOnce = 4;  // are loaded before they are added, in order
  RowTotal<kCount> total;
  int begin = s.first_chunk[b];
  const int end = s.first_chunk[b + 1];
  const bool any = begin < end;
  if (r.rule.window > 0) begin += max(0, r.context[b] - r.rule.window) / kKeyChunk;  // those before were not computed
  for (int first = begin; first < end; first += kAtOnce) {
    float out[kAtOnce][kCount], max[kAtOnce], sum[kAtOnce];
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      if (first + a >= end) continue;
      const int64_t at = static_cast<int64_t>(first + a) * r.heads + head;
      max[a] = s.max[at];
      sum[a] = s.sum[at];
#pragma unroll
      for (int i = 0; i < kCount; ++i) out[a][i] = s.out[at * kDim + i * 32 + lane];
    }
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      if (first + a < end) total.Add(max[a], sum[a], out[a]);
    }
  }
  if (any && r.rule.sinks != nullptr) total.AddSink(ScoreTerms::SinkLog2(r.rule, head));
  bf16* out = static_cast<bf16*>(r.out) + unit * kDim;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    out[i * 32 + lane] = __float2bfloat16_rn(any ? total.Output(i) : 0.0f);
  }
  if (r.lse != nullptr && lane == 0) r.lse[head * r.lse_head_stride + b * r.lse_token_stride] = total.LogSumExp();
}

// Calls `body` with the head dim, whether there is a rule, and whether keys are fp8, as compile-time constants.
template <typename Body>
absl::Status WithShape(const AttentionForward& run, Body body) {
  if (run.keys.fp8 && !run.rule.plain()) {
    return absl::InvalidArgumentError("attention: keys in fp8 are read without window, cap, slopes and sinks only");
  }
  auto with_dim = [&](auto dim) {
    if (run.keys.fp8) return body(dim, std::false_type(), std::true_type());
    return run.rule.plain() ? body(dim, std::false_type(), std::false_type()) : body(dim, std::true_type(), std::false_type());
  };
  switch (run.head_dim) {
    case 32: return with_dim(std::integral_constant<int, 32>());
    case 64: return with_dim(std::integral_constant<int, 64>());
    case 96: return with_dim(std::integral_constant<int, 96>());
    case 128: return with_dim(std::integral_constant<int, 128>());
    case 256: return with_dim(std::integral_constant<int, 256>());
  }
  return absl::InvalidArgumentError(
      absl::StrCat("attention: head_dim is ", run.head_dim, ", want 32, 64, 96, 128 or 256"));
}

// Lets a kernel take more shared memory than blocks get unasked.
template <typename Kernel>
absl::Status Widen(const char* name, Kernel kernel, int bytes) {
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(name, ": this GPU refuses ", bytes,
                                                    " bytes of shared memory per block: ",
                                                    cudaGetErrorString(error)));
}

}  // namespace

absl::Status AttendPrefill(const AttentionForward& run, int64_t longest, void* stream) {
  if (run.tokens == 0) return absl::OkStatus();
  if (!run.keys.fp8 && HopperPrefillTakes(run)) return AttendPrefillHopper(run, longest, stream);
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

int64_t DecodeScratchBytes(int64_t most_chunks, int64_t sequences, int64_t heads, int64_t head_dim) {
  const DecodeScratch cut = Cut(nullptr, most_chunks, sequences, heads);
  return reinterpret_cast<int64_t>(cut.out + most_chunks * heads * head_dim);
}

absl::Status PlanDecode(const DecodePlan& plan, void* scratch, void* stream) {
  if (plan.sequences == 0) return absl::OkStatus();
  ListItemsKernel<<<1, kListThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      plan, Cut(scratch, plan.most_chunks, plan.sequences, plan.heads));
  return LaunchStatus("PlanDecode");
}

absl::Status AttendDecode(const AttentionForward& run, int64_t most_chunks, void* scratch,
                          void* stream) {
  if (run.sequences == 0) return absl::OkStatus();
  auto* on = static_cast<cudaStream_t>(stream);
  const DecodeScratch cut = Cut(scratch, most_chunks, run.sequences, run.heads);
  return WithShape(run, [&](auto dim, auto ruled, auto fp8) {
    using L = DecodeLayout<dim.value, fp8.value>;
    auto* kernel = AttendDecodeKernel<dim.value, ruled.value, fp8.value>;
    const int warps = std::clamp(SharedMemoryOfBlock() / L::kWarpBytes, 1, L::kWarps), bytes = warps * L::kWarpBytes;
    absl::Status status = Widen("AttendDecode", kernel, bytes);
    if (!status.ok()) return status;
    const int processors = DeviceAttribute(cudaDevAttrMultiProcessorCount);
    int resident = 0;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, 32 * warps, bytes);
    const int64_t parts = (run.heads / run.kv_heads + kDecodeRows - 1) / kDecodeRows;
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(
        most_chunks * run.kv_heads * parts, static_cast<int64_t>(processors) * std::max(resident, 1)));
    kernel<<<blocks, 32 * warps, bytes, on>>>(run, cut);
    const auto heads = static_cast<unsigned>((run.sequences * run.heads + 3) / 4);
    AddChunksKernel<dim.value><<<heads, 128, 0, on>>>(run, cut);
    return LaunchStatus("AttendDecode");
  });
}

}  // namespace rein::kernels
