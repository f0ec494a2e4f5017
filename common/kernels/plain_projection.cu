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
  static constexpr int kStages = kWarps == 1 ? 8 : 6;
  static constexpr int kStage = (kRows + kColumns) * kStride;
  static constexpr int kBytes = kStages * kStage * 2;
};

template <int kWarps>
__global__ void __launch_bounds__(Layout<kWarps>::kThreads) PlainProjectionKernel(Projection p) {
  using L = Layout<kWarps>;
  extern __shared__ __align__(16) bf16 shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * L::kRows;
  const int stages = static_cast<int>((p.inner + kInner - 1) / kInner);
  const auto* x = static_cast<const bf16*>(p.x);
  const auto* weight = static_cast<const bf16*>(p.weight);

  auto fetch = [&](int stage) {
    if (stage < stages) {
      bf16* to = shared + stage % L::kStages * L::kStage;
      constexpr int kPieces = kInner / 8;
      for (int piece = threadIdx.x; piece < (L::kRows + kColumns) * kPieces; piece += L::kThreads) {
        const int row = piece / kPieces, k = piece % kPieces * 8;
        const int64_t inner = static_cast<int64_t>(stage) * kInner + k;
        const bool of_x = row < L::kRows;
        const int64_t at = of_x ? first_row + row : first_column + row - L::kRows;
        const bool live = inner < p.inner && (!of_x || at < p.rows);
        const bf16* from = of_x ? x : weight;
        CopyAsync16(to + row * kStride + k, live ? from + at * p.inner + inner : from, live);
      }
    }
    CommitCopies();
  };
  for (int stage = 0; stage < L::kStages - 1; ++stage) fetch(stage);
  float sum[4] = {};
  for (int stage = 0; stage < stages; ++stage) {
    WaitForCopies<L::kStages - 2>();
    if constexpr (kWarps > 1) __syncthreads(); else __syncwarp();
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
    if constexpr (kWarps > 1) __syncthreads(); else __syncwarp();
    fetch(stage + L::kStages - 1);
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
    *reinterpret_cast<uint32_t*>(static_cast<bf16*>(p.y) + row * p.columns + column) =
        PackBf16(sum[2 * i] + bias.x, sum[2 * i + 1] + bias.y);
  }
}

template <int kWarps>
absl::Status Launch(const Projection& p, void* stream) {
  using L = Layout<kWarps>;
  cudaFuncSetAttribute(PlainProjectionKernel<kWarps>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       L::kBytes);
  const dim3 grid(static_cast<unsigned>(p.columns / kColumns),
                  static_cast<unsigned>((p.rows + L::kRows - 1) / L::kRows));
  PlainProjectionKernel<kWarps>
      <<<grid, L::kThreads, L::kBytes, static_cast<cudaStream_t>(stream)>>>(p);
  return LaunchStatus("PlainProjection");
}

}  // namespace

absl::Status RunPlainProjection(const Projection& run, void* stream) {
  if (run.rows == 0) return absl::OkStatus();
  if (run.rows <= 16) return Launch<1>(run, stream);
  if (run.rows <= 32) return Launch<2>(run, stream);
  return Launch<4>(run, stream);
}

}  // namespace rein::kernels
