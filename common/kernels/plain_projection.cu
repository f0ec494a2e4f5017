#include <algorithm>

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_status.h"
#include "common/kernels/mma.cuh"
#include "common/kernels/projection.h"

namespace rein::kernels {
namespace {

constexpr int kColumns = 8;    // of y, for each block
constexpr int kInner = 128;    // of one stage
constexpr int kStride = kInner + 8;

// A block of kWarps warps: 16 rows for each warp, eight columns for all. Stages of x and W stream through
// shared memory; every output is one chain of m16n8k16 products, in order.
template <int kWarps>
struct Layout {
  static constexpr int kRows = 16 * kWarps, kThreads = 32 * kWarps;
  static constexpr int kStages = kWarps == 1 ? 8 : 5;  // 99 KiB at most
  static constexpr int kStage = (kRows + kColumns) * kStride;
  static constexpr int kBytes = kStages * kStage * 2;
};

__device__ void StorePair(bf16* to, float a, float b) { *reinterpret_cast<uint32_t*>(to) = PackBf16(a, b); }
__device__ void StorePair(float* to, float a, float b) { *reinterpret_cast<float2*>(to) = {a, b}; }

// y is [rows, columns] of Out.
template <int kWarps, typename Out>
__global__ void __launch_bounds__(Layout<kWarps>::kThreads) PlainProjectionKernel(Projection p) {
  using L = Layout<kWarps>;
  extern __shared__ __align__(16) bf16 shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * L::kRows;
  const int stages = static_cast<int>((p.inner + kInner - 1) / kInner);
  const auto* x = static_cast<const bf16*>(p.x);
  const auto* weight = static_cast<const bf16*>(p.weight);

  // A thread copies 16 bytes at one place of every kStep-th row: of the eight of W, and of those of x that are
  // there; the others stay zero.
  constexpr int kPieces = kInner / 8, kStep = L::kThreads / kPieces;
  static_assert(kColumns % kStep == 0 && L::kRows % kStep == 0);
  const int own_row = threadIdx.x / kPieces, own_k = threadIdx.x % kPieces * 8;
  const int live_rows = static_cast<int>(min(p.rows - first_row, static_cast<int64_t>(L::kRows)));
  const bf16* weight_at = weight + (first_column + own_row) * p.inner + own_k;
  const bf16* x_at = x + (first_row + own_row) * p.inner + own_k;
  bf16* target = shared + own_row * kStride + own_k;
  if (live_rows < L::kRows) {
    for (int i = threadIdx.x * 8; i < L::kStages * L::kStage; i += L::kThreads * 8) {
      *reinterpret_cast<uint4*>(shared + i) = uint4{};
    }
    __syncthreads();
  }
  auto fetch = [&](int stage) {
    if (stage < stages) {
      const bool live = stage * kInner + own_k < p.inner;  // else zeros
      bf16* to = target + stage % L::kStages * L::kStage;
#pragma unroll
      for (int row = 0; row < kColumns; row += kStep) {
        CopyAsync16(to + (L::kRows + row) * kStride, live ? weight_at + row * p.inner : weight, live);
      }
#pragma unroll
      for (int row = 0; row < L::kRows; row += kStep) {
        if (own_row + row < live_rows) {
          CopyAsync16(to + row * kStride, live ? x_at + row * p.inner : x, live);
        }
      }
      weight_at += kInner;
      x_at += kInner;
    }
    CommitCopies();
  };
  for (int stage = 0; stage < L::kStages - 1; ++stage) fetch(stage);
  float sum[4] = {};
  for (int stage = 0; stage < stages; ++stage) {
    WaitForCopies<L::kStages - 2>();
    __syncthreads();  // the stage is there for all, and the one before is read by all
    fetch(stage + L::kStages - 1);
    const bf16* rows = shared + stage % L::kStages * L::kStage + warp * 16 * kStride;
    const bf16* columns = shared + stage % L::kStages * L::kStage + L::kRows * kStride;
#pragma unroll
    for (int k = 0; k < kInner; k += 32) {
      uint32_t b[4], a[4];
      LoadMatrices(b, columns + lane % 8 * kStride + k + lane / 8 * 8);
      LoadMatrices(a, rows + lane % 16 * kStride + k + lane / 16 * 8);
      Multiply(sum, a, b[0], b[1]);
      LoadMatrices(a, rows + lane % 16 * kStride + k + 16 + lane / 16 * 8);
      Multiply(sum, a, b[2], b[3]);
    }
  }
  const int64_t column = first_column + lane % 4 * 2;
  float2 bias = {0, 0};
  if (p.bias != nullptr) {
    bias = __bfloat1622float2(
        *reinterpret_cast<const __nv_bfloat162*>(static_cast<const bf16*>(p.bias) + column));
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t row = first_row + warp * 16 + lane / 4 + 8 * i;
    if (row >= p.rows) continue;
    StorePair(static_cast<Out*>(p.y) + row * p.columns + column, sum[2 * i] + bias.x, sum[2 * i + 1] + bias.y);
  }
}

template <int kWarps, typename Out>
absl::Status Launch(const Projection& p, void* stream) {
  using L = Layout<kWarps>;
  cudaFuncSetAttribute(PlainProjectionKernel<kWarps, Out>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       L::kBytes);
  const dim3 grid(static_cast<unsigned>(p.columns / kColumns),
                  static_cast<unsigned>((p.rows + L::kRows - 1) / L::kRows));
  PlainProjectionKernel<kWarps, Out>
      <<<grid, L::kThreads, L::kBytes, static_cast<cudaStream_t>(stream)>>>(p);
  return LaunchStatus("PlainProjection");
}

template <typename Out>
absl::Status Run(const Projection& run, void* stream) {
  if (run.rows == 0) return absl::OkStatus();
  if (run.rows <= 16) return Launch<1, Out>(run, stream);
  if (run.rows <= 32) return Launch<2, Out>(run, stream);
  return Launch<4, Out>(run, stream);
}

}  // namespace

absl::Status RunPlainProjection(const Projection& run, void* stream) { return Run<bf16>(run, stream); }

absl::Status RunPlainProjectionToFloat(const Projection& run, void* stream) { return Run<float>(run, stream); }

}  // namespace rein::kernels
