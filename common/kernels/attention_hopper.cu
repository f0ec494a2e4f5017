#include "common/kernels/attention_hopper.h"

#include "common/kernels/attention_tile.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

using bf16 = __nv_bfloat16;

constexpr float kLog2E = 1.44269504088896340736f;
constexpr int kTilesPerChunk = kKeyChunk / kKeyTile;
constexpr int kGroupThreads = 128;  // of one warpgroup, which holds 64 queries
constexpr int kGroups = kQueryTile / 64;
constexpr int kThreads = kGroups * kGroupThreads;
constexpr int kStages = 2;

// Shared memory holds matrices in blocks of 64 columns: rows of 128 bytes, whose eight 16-byte pieces are
// exchanged by the row's number (the 128-byte swizzle that wgmma reads).
__device__ int Swizzled(int rows, int row, int column) {
  return column / 64 * rows * 64 + row * 64 + ((column % 64 / 8) ^ (row % 8)) * 8 + column % 8;
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

__device__ void Fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ void Commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
__device__ void WaitForProducts() { asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory"); }

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

// score[64 x 64] (+)= q[64 x 16] key[64 x 16]^T; both in shared memory.
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

// out[64 x 64] += p[64 x 16] value[16 x 64]; p in registers, value in shared memory, read across its rows.
__device__ void MultiplyValues(float (&d)[8][4], const uint32_t (&p)[4], uint64_t value) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"
      "%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;\n"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),
        "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(value));
}

template <int kDim>
struct Layout {
  static constexpr int kQuery = kQueryTile * kDim;  // elements
  static constexpr int kTile = kKeyTile * kDim;
  static constexpr int kBytes = (kQuery + kStages * 2 * kTile) * 2 + 1024;  // blocks begin at 1024 bytes
};

template <int kDim, int kRows>
__device__ void CopyRow(const bf16* from, int row, int column, bool live, bf16* to) {
  CopyAsync16(to + Swizzled(kRows, row, column), from + column, live);
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1) AttendPrefillHopperKernel(AttentionForward r) {
  using L = Layout<kDim>;
  extern __shared__ bf16 unaligned[];
  bf16* shared = reinterpret_cast<bf16*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023});
  const int64_t b = blockIdx.z, head = blockIdx.y;
  const int begin = r.query_begin[b], queries = r.query_begin[b + 1] - begin;
  const int tile_of_queries = static_cast<int>(gridDim.x - 1 - blockIdx.x);  // the longest work first
  if (tile_of_queries * kQueryTile >= queries) return;
  const int context = r.context[b], first_query = tile_of_queries * kQueryTile;
  const int first_position = context - queries;
  const int64_t kv_head = head / (r.heads / r.kv_heads);
  const int group = threadIdx.x / kGroupThreads, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  constexpr int kPieces = kDim / 8;

  bf16* query_tile = shared;  // each warpgroup's 64 rows are a matrix of their own
  bf16* stages = shared + L::kQuery;
#pragma unroll
  for (int i = 0; i < kQueryTile * kPieces / kThreads; ++i) {
    const int piece = i * kThreads + threadIdx.x, row = piece / kPieces, column = piece % kPieces * 8;
    const bool live = first_query + row < queries;
    const bf16* from = static_cast<const bf16*>(r.q);
    if (live) from += (begin + first_query + row) * r.q_stride + head * kDim;
    CopyRow<kDim, 64>(from, row % 64, column, live, query_tile + row / 64 * 64 * kDim);
  }
  int query[2], position[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    query[i] = first_query + group * 64 + warp * 16 + lane / 4 + 8 * i;
    position[i] = query[i] < queries ? first_position + query[i] : -1;
  }
  const KeyRows rows{r.keys, b, context};
  const int last_query = min(first_query + kQueryTile, queries) - 1;
  const int tiles = (first_position + last_query) / kKeyTile + 1;
  // What the rows of this warpgroup see; the last one need not see the block's last tiles.
  const int group_last = min(first_query + group * 64 + 63, queries - 1);
  const int group_tiles = first_query + group * 64 < queries ? (first_position + group_last) / kKeyTile + 1 : 0;
  auto fetch = [&](int tile) {
    if (tile < tiles) {
      bf16* key = stages + tile % kStages * 2 * L::kTile;
      const int live_rows = context - tile * kKeyTile;
#pragma unroll
      for (int i = 0; i < kKeyTile * kPieces / kThreads; ++i) {
        const int piece = i * kThreads + threadIdx.x, row = piece / kPieces, column = piece % kPieces * 8;
        const bool live = row < live_rows;
        const int64_t token =
            live ? rows.FirstToken(tile * kGroupsPerTile + row / kKeyGroup) + row % kKeyGroup : 0;
        CopyRow<kDim, kKeyTile>(static_cast<const bf16*>(r.keys.key) + token * r.keys.key_stride + kv_head * kDim,
                                row, column, live, key);
        CopyRow<kDim, kKeyTile>(
            static_cast<const bf16*>(r.keys.value) + token * r.keys.value_stride + kv_head * kDim, row, column,
            live, key + L::kTile);
      }
    }
    CommitCopies();
  };

  const float scale_log2 = r.scale * kLog2E;
  float chunk_max[2], chunk_sum[2], chunk_out[kDim / 64][8][4];
  float total_max[2] = {-INFINITY, -INFINITY}, total_sum[2] = {}, total_out[kDim / 64][8][4] = {};
  auto reset = [&] {
#pragma unroll
    for (int i = 0; i < 2; ++i) chunk_max[i] = -INFINITY, chunk_sum[i] = 0;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) chunk_out[n / 8][n % 8][i] = 0;
    }
  };
  // As RowTotal::Add, on the registers of both rows.
  auto add_chunk = [&] {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float sum = RowSum(chunk_sum[i]);
      if (chunk_max[i] == -INFINITY) continue;
      const float both = fmaxf(total_max[i], chunk_max[i]);
      const float keep = total_max[i] == -INFINITY ? 0.0f : PowerOfTwo(total_max[i] - both);
      const float take = PowerOfTwo(chunk_max[i] - both);
      total_max[i] = both;
      total_sum[i] = __fadd_rn(__fmul_rn(total_sum[i], keep), __fmul_rn(sum, take));
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
          total_out[n / 8][n % 8][j] = __fadd_rn(__fmul_rn(total_out[n / 8][n % 8][j], keep),
                                                 __fmul_rn(chunk_out[n / 8][n % 8][j], take));
        }
      }
    }
    reset();
  };
  reset();
  fetch(0);
  for (int tile = 0; tile < tiles; ++tile) {
    WaitForCopies<0>();
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
    __syncthreads();
    fetch(tile + 1);
    if (tile >= group_tiles) continue;  // adds nothing
    const bf16* key = stages + tile % kStages * 2 * L::kTile;
    const bf16* value = key + L::kTile;
    const bf16* own_query = query_tile + group * 64 * kDim;
    float score[8][4];
    Pin(score);
    Fence();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const int column = k / 4 * 64 * 64 + k % 4 * 16;
      MultiplyScores(score, Descriptor(own_query + column, 0), Descriptor(key + column, 0), k > 0);
    }
    Commit();
    WaitForProducts();
    Pin(score);
    const bool boundary = (tile + 1) * kKeyTile > first_position + first_query + group * 64;
    float highest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[n][i] = __fmul_rn(score[n][i], scale_log2);
        if (boundary && tile * kKeyTile + n * 8 + lane % 4 * 2 + i % 2 > position[i / 2]) {
          score[n][i] = -INFINITY;
        }
        highest[i / 2] = fmaxf(highest[i / 2], score[n][i]);
      }
    }
    float rescale[2], shift[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      highest[i] = fmaxf(highest[i], __shfl_xor_sync(~0u, highest[i], 1));
      highest[i] = fmaxf(highest[i], __shfl_xor_sync(~0u, highest[i], 2));
      const float max = fmaxf(chunk_max[i], ceilf(highest[i]));
      rescale[i] = chunk_max[i] == max ? 1.0f : PowerOfTwo(chunk_max[i] - max);
      shift[i] = max == -INFINITY ? 0.0f : max;
      chunk_max[i] = max;
      chunk_sum[i] = __fmul_rn(chunk_sum[i], rescale[i]);
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        score[n][i] = PowerOfTwoOf(__fsub_rn(score[n][i], shift[i / 2]));
        chunk_sum[i / 2] = __fadd_rn(chunk_sum[i / 2], score[n][i]);
      }
    }
    if (rescale[0] != 1.0f || rescale[1] != 1.0f) {
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          chunk_out[n / 8][n % 8][i] = __fmul_rn(chunk_out[n / 8][n % 8][i], rescale[i / 2]);
        }
      }
    }
    uint32_t p[4][4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      p[k][0] = PackBf16(score[2 * k][0], score[2 * k][1]);
      p[k][1] = PackBf16(score[2 * k][2], score[2 * k][3]);
      p[k][2] = PackBf16(score[2 * k + 1][0], score[2 * k + 1][1]);
      p[k][3] = PackBf16(score[2 * k + 1][2], score[2 * k + 1][3]);
    }
    Pin(p);
    Pin(chunk_out);
    Fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int n = 0; n < kDim / 64; ++n) {
        MultiplyValues(chunk_out[n], p[k],
                       Descriptor(value + n * kKeyTile * 64 + k * 16 * 64, kKeyTile * 128));
      }
    }
    Commit();
    WaitForProducts();
    Pin(chunk_out);
    if (tile % kTilesPerChunk == kTilesPerChunk - 1 || tile == group_tiles - 1) add_chunk();
  }
  WaitForCopies<0>();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (position[i] < 0) continue;
    bf16* out = static_cast<bf16*>(r.out) + (static_cast<int64_t>(begin + query[i]) * r.heads + head) * kDim;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + n * 8 + lane % 4 * 2) =
          PackBf16(__fdiv_rn(total_out[n / 8][n % 8][i * 2], total_sum[i]),
                   __fdiv_rn(total_out[n / 8][n % 8][i * 2 + 1], total_sum[i]));
    }
    if (r.lse != nullptr && lane % 4 == 0) {
      r.lse[head * r.tokens + begin + query[i]] =
          (total_max[i] + log2f(total_sum[i])) * 0.693147180559945309f;
    }
  }
}

template <int kDim>
absl::Status Launch(const AttentionForward& run, int64_t longest, void* stream) {
  cudaFuncSetAttribute(AttendPrefillHopperKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       Layout<kDim>::kBytes);
  const dim3 grid(static_cast<unsigned>((longest + kQueryTile - 1) / kQueryTile),
                  static_cast<unsigned>(run.heads), static_cast<unsigned>(run.sequences));
  AttendPrefillHopperKernel<kDim>
      <<<grid, kThreads, Layout<kDim>::kBytes, static_cast<cudaStream_t>(stream)>>>(run);
  return LaunchStatus("AttendPrefill");
}

}  // namespace

bool HopperPrefillTakes(int64_t head_dim) {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return major == 9 && minor == 0 && (head_dim == 64 || head_dim == 128);
}

absl::Status AttendPrefillHopper(const AttentionForward& run, int64_t longest, void* stream) {
  return run.head_dim == 64 ? Launch<64>(run, longest, stream) : Launch<128>(run, longest, stream);
}

}  // namespace rein::kernels
