// Decoding: a warp holds the queries of one kv head of one sequence, or of neighbours that share the keys, and walks over
// one chunk; where more queries than a warp holds share a kv head, several warps do.

#include <algorithm>

#include "common/kernels/attention_launch.cuh"
#include "common/kernels/attention_tile.cuh"
#include "common/kernels/fp8.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_overlap.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

using bf16 = __nv_bfloat16;

// A tile of fp8 becomes one of bf16, by one warp; in shared memory its rows stand side by side.
template <int kDim>
__device__ void ExpandTile(const uint8_t* from, int lane, bf16* to) {
#pragma unroll
  for (int i = 0; i < kKeyTile * kDim / 8 / 32; ++i) {
    const int piece = i * 32 + lane, row = piece / (kDim / 8), column = piece % (kDim / 8) * 8;
    *reinterpret_cast<uint4*>(to + row * kTileStride<kDim> + column) =
        Bf16OfFp8(reinterpret_cast<const uint2*>(from)[piece]);
  }
}

constexpr int kDecodeRows = 16;  // queries of a warp

// Neighbours whose queries one warp holds.
__host__ __device__ inline int MostSiblings(int64_t heads, int64_t kv_heads) {
  const auto group = static_cast<int>(heads / kv_heads);
  return group < kDecodeRows ? kDecodeRows / group : 1;
}

// Chunk `chunk` of `siblings` sequences from `sequence` on.
struct DecodeItem {
  int32_t sequence, chunk, siblings;
};

struct DecodeCounts {
  int32_t whole, partial;  // items of whole chunks, and of the last chunks of sequences
  int32_t taken;           // by warps that were done with their first one; 0 between launches
};

// The items of a step, and what the chunks leave: sums for each chunk of each sequence.
struct DecodeScratch {
  DecodeCounts* counts;
  int32_t* first_chunk;  // [B + 1]: where each sequence's sums begin
  DecodeItem* item;      // [most_chunks]: whole chunks from the front, the others from the back
  float* max;            // [most_chunks, H]
  float* sum;            // [most_chunks, H]
  float* out;            // [most_chunks, H, C]
};

DecodeScratch Cut(void* scratch, int64_t most_chunks, int64_t sequences, int64_t heads) {
  auto aligned = [](int64_t n) { return (n + 63) / 64 * 64; };
  DecodeScratch cut;
  cut.counts = static_cast<DecodeCounts*>(scratch);
  cut.first_chunk = static_cast<int32_t*>(scratch) + aligned(sizeof(DecodeCounts) / sizeof(int32_t));
  cut.item = reinterpret_cast<DecodeItem*>(cut.first_chunk + aligned(sequences + 1));
  cut.max = reinterpret_cast<float*>(cut.item + aligned(most_chunks));
  cut.sum = cut.max + aligned(most_chunks * heads);
  cut.out = cut.sum + aligned(most_chunks * heads);
  return cut;
}

// Lists the items of a step. One block of kListThreads, a sequence for each thread. Where a chunk's siblings need more
// warps than one, their items stand side by side: they run at one time, and memory is read once.
constexpr int kListThreads = 512;
constexpr int kMostSharers = 64;  // of a chunk, about

// Turns `own` of each thread into the sum up to and with it.
__device__ void AddUp(int (&sums)[kListThreads], int own) {
  sums[threadIdx.x] = own;
  __syncthreads();
  for (int offset = 1; offset < kListThreads; offset *= 2) {
    const int add = static_cast<int>(threadIdx.x) >= offset ? sums[threadIdx.x - offset] : 0;
    __syncthreads();
    sums[threadIdx.x] += add;
    __syncthreads();
  }
}

__global__ void ListItemsKernel(DecodePlan plan, DecodeScratch s) {
  __shared__ int chunks_to[kListThreads], whole_to[kListThreads], partial_to[kListThreads];  // with this sequence
  __shared__ int shared_of[kListThreads];
  const int own = threadIdx.x, sequences = static_cast<int>(plan.sequences);
  const int most_siblings = MostSiblings(plan.heads, plan.kv_heads);
  const int set = kMostSharers / most_siblings * most_siblings;
  const int set_end = min((own / set + 1) * set, kListThreads);
  const int most_chunks = static_cast<int>(plan.most_chunks);
  int chunks_before = 0, whole_before = 0, partial_before = 0;
  for (int first = 0; first < sequences; first += kListThreads) {
    const int b = first + own;
    const int context = b < sequences ? plan.context[b] : 0;
    const int chunks = (context + kKeyChunk - 1) / kKeyChunk;
    // Whole chunks that the sequence before it, in the same set of possible siblings, takes along.
    int shared = 0;
    if (plan.shared != nullptr && b < sequences && own % set != 0) {
      shared = min(plan.shared[b], min(context, plan.context[b - 1])) / kKeyChunk;
    }
    AddUp(chunks_to, chunks);
    const int end = min(chunks_before + chunks_to[own], most_chunks);
    const int begin = min(chunks_before + chunks_to[own] - chunks, most_chunks);
    const int partial = end - begin == chunks && context % kKeyChunk != 0;
    shared_of[own] = shared = min(shared, end - begin);
    __syncthreads();
    // Calls body(chunk, first sibling, siblings) for each item of a whole chunk of this sequence's own.
    auto for_whole = [&](auto body) {
      for (int chunk = shared; chunk < end - begin - partial; ++chunk) {
        int siblings = 1;
        while (own + siblings < set_end && shared_of[own + siblings] > chunk) ++siblings;
        for (int s = 0; s < siblings; s += most_siblings) body(chunk, s, min(siblings - s, most_siblings));
      }
    };
    int whole = 0;
    for_whole([&](int, int, int) { ++whole; });
    AddUp(whole_to, whole);
    AddUp(partial_to, partial);
    if (b < sequences) {
      s.first_chunk[b] = begin;
      int at = whole_before + whole_to[own] - whole;
      for_whole([&](int chunk, int first_sibling, int siblings) { s.item[at++] = {b + first_sibling, chunk, siblings}; });
      // Short ones come last, so that warps end at about one time.
      if (partial != 0) s.item[most_chunks - partial_before - partial_to[own]] = {b, chunks - 1, 1};
      if (b == sequences - 1) {
        s.first_chunk[sequences] = end;
        *s.counts = {whole_before + whole_to[own], partial_before + partial_to[own], 0};
      }
    }
    chunks_before += chunks_to[kListThreads - 1];
    whole_before += whole_to[kListThreads - 1];
    partial_before += partial_to[kListThreads - 1];
    __syncthreads();
  }
  __threadfence();  // what attends may read it before it awaits the kernel before itself
}

// Per warp: a ring of tiles of keys and of values as they are in memory; of fp8 also one in bf16, of keys, then of values.
template <int kDim, bool kFp8>
struct DecodeLayout {
  using Element = std::conditional_t<kFp8, uint8_t, bf16>;
  static constexpr int kStride = kFp8 ? kDim : kTileStride<kDim>;
  static constexpr int kTile = kKeyTile * kStride;
  static constexpr int kStages = kFp8 ? 2 : 3;
  static constexpr int kExpanded = kKeyTile * kTileStride<kDim>;
  static constexpr int kWarpBytes = kStages * kTile * static_cast<int>(sizeof(Element)) + (kFp8 ? kExpanded * 2 : 0);
  // At most: as many as shared memory holds. More of them hide what fp8 costs in instructions.
  static constexpr int kWarps = kFp8 ? std::min(12, 227 * 1024 / kWarpBytes) : kDim > 128 ? 2 : 4;
};

template <int kDim, bool kRuled, bool kFp8>
__global__ void __launch_bounds__(32 * DecodeLayout<kDim, kFp8>::kWarps)
    AttendDecodeKernel(AttentionForward r, DecodeScratch s, int64_t most_chunks) {
  using L = DecodeLayout<kDim, kFp8>;
  using Element = typename L::Element;
  extern __shared__ __align__(16) bf16 shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto* ring = reinterpret_cast<Element*>(reinterpret_cast<uint8_t*>(shared) + warp * L::kWarpBytes);
  const int group = static_cast<int>(r.heads / r.kv_heads);
  const int parts = (group + kDecodeRows - 1) / kDecodeRows, part_rows = min(group, kDecodeRows);  // of a group
  const int units = static_cast<int>(r.kv_heads) * parts;
  const int whole = s.counts->whole, items = (whole + s.counts->partial) * units;
  const ScoreTerms terms(r.rule, r.scale);
  // What was there before the kernel before this one, whatever is listed and every key but the newest, is not waited for.
  bool awaited = false;
  auto await_last = [&] {
    if (awaited) return;
    AwaitLast();
    LetNextBegin();
    awaited = true;
  };
  // Few items are spread over many processors; after its first one a warp takes what is next.
  const int warps = static_cast<int>(gridDim.x * blockDim.x / 32);
  int next = 0;
  for (int item = warp * gridDim.x + blockIdx.x; item < items; item = warps + __shfl_sync(~0u, next, 0)) {
    const int unit = item % units, kv_head = unit / parts, part = unit % parts, listed = item / units;
    const auto [b, chunk_index, siblings] = s.item[listed < whole ? listed : static_cast<int>(most_chunks) - 1 - (listed - whole)];
    const int context = r.context[b], first_key = chunk_index * kKeyChunk;
    const int tiles = (min(context - first_key, kKeyChunk) + kKeyTile - 1) / kKeyTile;
    int first_tile = 0;
    if (kRuled && r.rule.window > 0) {  // of the one that sees furthest back
      int shortest = context;
      for (int n = 1; n < siblings; ++n) shortest = min(shortest, r.context[b + n]);
      first_tile = max(0, shortest - r.rule.window - first_key) / kKeyTile;
      if (first_tile >= tiles) {
        await_last();
        if (lane == 0) next = atomicAdd(&s.counts->taken, 1);
        continue;
      }
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
    // A chunk's first tile is old, but in the chunk that ends a sequence.
    const bool old = first_key + (first_tile + 1) * kKeyTile < context && !kRuled;
    __syncwarp();
    if (!old) await_last();
    fetch(2 * first_tile);
    fetch(2 * first_tile + 1);
    await_last();
    if (lane == 0) next = atomicAdd(&s.counts->taken, 1);
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
        bf16* expanded = reinterpret_cast<bf16*>(ring + L::kStages * L::kTile);
        auto expand = [&](int piece) {  // which makes room for what comes
          WaitForCopies<1>();
          __syncwarp();
          ExpandTile<kDim>(ring + piece * L::kTile, lane, expanded);
          __syncwarp();
          fetch(2 * tile + 2 + piece);
        };
        expand(0);
        AddTile<kDim, kRuled>(q_fragment, expanded, expanded, at, terms, chunk, [&] { expand(1); });
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
  await_last();
}

// One warp adds the chunks of one head of one sequence.
template <int kDim>
__global__ void AddChunksKernel(AttentionForward r, DecodeScratch s) {
  const int64_t unit = blockIdx.x * 4 + threadIdx.x / 32;
  const int64_t b = unit / r.heads, head = unit % r.heads;
  const bool live = b < r.sequences;
  int begin = live ? s.first_chunk[b] : 0;  // listed before the kernel before this one: not waited for
  const int end = live ? s.first_chunk[b + 1] : 0;
  AwaitLast();
  LetNextBegin();
  if (blockIdx.x == 0 && threadIdx.x == 0) s.counts->taken = 0;
  if (!live) return;
  const int lane = threadIdx.x % 32;
  constexpr int kCount = kDim / 32;
  constexpr int kAtOnce = 4;  // are loaded before they are added, in order
  RowTotal<kCount> total;
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

}  // namespace

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
    LaunchOverlapping(kernel, dim3(blocks), 32 * warps, bytes, stream, run, cut, most_chunks);
    const auto heads = static_cast<unsigned>((run.sequences * run.heads + 3) / 4);
    LaunchOverlapping(AddChunksKernel<dim.value>, dim3(heads), 128, 0, stream, run, cut);
    return LaunchStatus("AttendDecode");
  });
}

}  // namespace rein::kernels
