#include "common/kernels/barrier.cuh"
#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/dependent_launch.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_status.h"
#include "common/kernels/projection.h"

namespace rein::kernels {
namespace {

// A block: kWarps warps that compute, 16 rows each with all the block's columns, and kCopiers that bring stages of W
// and x ahead of them. Every output is one chain of m16n8k16 products, in order, as in the plain kernel.
template <int kWarpCount, int kColumnTiles, int kStageCount, int kStageInner, int kCopiers>
struct Layout {
  static constexpr int kWarps = kWarpCount, kRows = 16 * kWarps, kColumns = 8 * kColumnTiles;
  static constexpr int kCopyThreads = 32 * kCopiers, kThreads = 32 * kWarps + kCopyThreads;
  static constexpr int kStages = kStageCount, kInner = kStageInner, kStride = kInner + 8;
  static constexpr int kStage = (kColumns + kRows) * kStride;  // the columns' weights, then the rows
  static constexpr int kBytes = kStages * kStage * 2;
};

template <typename L>
struct Barriers {
  Barrier full[L::kStages], empty[L::kStages];
};

// Rows of x beyond the last are never copied: what they give is never written.
template <typename L>
__device__ void CopyStages(const Projection& p, int64_t first_column, int thread, bf16* shared, Barriers<L>& barriers) {
  constexpr int kPieces = L::kInner / 8, kStep = L::kCopyThreads / kPieces;
  static_assert(kStep >= 1 && L::kColumns % kStep == 0 && L::kRows % kStep == 0);
  const int own_row = thread / kPieces, own_k = thread % kPieces * 8;
  const int rows = static_cast<int>(p.rows), inner = static_cast<int>(p.inner);
  const bf16* weight = static_cast<const bf16*>(p.weight) + (first_column + own_row) * p.inner;
  const bf16* x = static_cast<const bf16*>(p.x) + own_row * p.inner;
  for (int stage = 0; stage * L::kInner < inner; ++stage) {
    const int slot = stage % L::kStages, k = stage * L::kInner + own_k;
    if (stage >= L::kStages) barriers.empty[slot].Wait((stage / L::kStages - 1) % 2);
    bf16* to = shared + slot * L::kStage + own_row * L::kStride + own_k;
    const bool live = k < inner;
#pragma unroll
    for (int row = 0; row < L::kColumns; row += kStep) {
      CopyAsync16(to + row * L::kStride, live ? weight + row * p.inner + k : weight, live);
    }
#pragma unroll
    for (int row = 0; row < L::kRows; row += kStep) {
      if (own_row + row < rows) {
        CopyAsync16(to + (L::kColumns + row) * L::kStride, live ? x + row * p.inner + k : x, live);
      }
    }
    barriers.full[slot].ArriveWhenCopied();
  }
}

template <typename L>
__global__ void __launch_bounds__(L::kThreads) FewRowsProjectionKernel(Projection p) {
  AwaitPrevious();
  constexpr int kColumnTiles = L::kColumns / 8;
  constexpr int kPart = 128, kPartsOfStage = L::kInner / kPart, kSteps = kPart / 16;
  extern __shared__ __align__(16) bf16 shared[];
  __shared__ Barriers<L> barriers;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * L::kColumns;
  const int rows = static_cast<int>(p.rows);
  if (threadIdx.x < L::kStages) {
    barriers.full[threadIdx.x].Init(L::kCopyThreads);
    barriers.empty[threadIdx.x].Init(L::kWarps);
  }
  __syncthreads();
  if (warp >= L::kWarps) {
    CopyStages<L>(p, first_column, static_cast<int>(threadIdx.x) - 32 * L::kWarps, shared, barriers);
    return;
  }
  // What the products of kPart columns read; loaded while those before run, for their chain is all latency.
  struct Fragments {
    uint32_t x[kSteps][4], weight[kColumnTiles][kSteps / 2][4];
  };
  auto load = [&](int part) {
    const int stage = part / kPartsOfStage;
    if (part % kPartsOfStage == 0) barriers.full[stage % L::kStages].Wait(stage / L::kStages % 2);
    const bf16* columns = shared + stage % L::kStages * L::kStage + part % kPartsOfStage * kPart;
    const bf16* own_rows = columns + (L::kColumns + warp * 16) * L::kStride;
    Fragments f;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
      for (int c = 0; c < kColumnTiles && k % 2 == 0; ++c) {
        LoadMatrices(f.weight[c][k / 2], columns + (c * 8 + lane % 8) * L::kStride + k * 16 + lane / 8 * 8);
      }
      LoadMatrices(f.x[k], own_rows + lane % 16 * L::kStride + k * 16 + lane / 16 * 8);
    }
    return f;
  };
  const int parts = static_cast<int>((p.inner + kPart - 1) / kPart);
  float sum[kColumnTiles][4] = {};
  Fragments now = load(0), next;
#pragma unroll 2
  for (int part = 0; part < parts; ++part) {
    if (part + 1 < parts) next = load(part + 1);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
        Multiply(sum[c], now.x[k], now.weight[c][k / 2][k % 2 * 2], now.weight[c][k / 2][k % 2 * 2 + 1]);
      }
    }
    if ((part + 1) % kPartsOfStage == 0) {
      __syncwarp();
      if (lane == 0) barriers.empty[part / kPartsOfStage % L::kStages].Arrive();
    }
    now = next;
  }
#pragma unroll
  for (int c = 0; c < kColumnTiles; ++c) {
    const int64_t column = first_column + c * 8 + lane % 4 * 2;
    float2 bias = {0, 0};
    if (p.bias != nullptr) {
      bias = __bfloat1622float2(
          *reinterpret_cast<const __nv_bfloat162*>(static_cast<const bf16*>(p.bias) + column));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = warp * 16 + lane / 4 + 8 * i;
      if (row >= rows) continue;
      *reinterpret_cast<uint32_t*>(static_cast<bf16*>(p.y) + row * p.columns + column) =
          PackBf16(sum[c][2 * i] + bias.x, sum[c][2 * i + 1] + bias.y);
    }
  }
}

template <typename L>
absl::Status Launch(const Projection& p, void* stream) {
  cudaFuncSetAttribute(FewRowsProjectionKernel<L>, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes);
  LaunchDependent(FewRowsProjectionKernel<L>, static_cast<unsigned>(p.columns / L::kColumns), L::kThreads, L::kBytes,
                  static_cast<cudaStream_t>(stream), p);
  return LaunchStatus("FewRowsProjection");
}

}  // namespace

bool FewRowsProjectionTakes(const Projection& run) {
  return IsHopper() && run.rows <= 64 && run.columns % 16 == 0 && run.inner % 8 == 0;
}

absl::Status RunFewRowsProjection(const Projection& run, void* stream) {
  constexpr int64_t kManyColumns = 2048;  // so many that processors have several blocks, of less memory each
  if (run.rows > 16) return Launch<Layout<4, 2, 4, 256, 4>>(run, stream);
  return run.columns > kManyColumns ? Launch<Layout<1, 1, 8, 128, 4>>(run, stream)
                                    : Launch<Layout<1, 1, 8, 256, 2>>(run, stream);
}

}  // namespace rein::kernels
