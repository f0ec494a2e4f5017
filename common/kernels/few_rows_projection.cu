#include "common/kernels/few_rows_projection.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/copy_engine.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_overlap.cuh"
#include "common/kernels/launch_status.h"
#include "common/kernels/mma.cuh"

namespace rein::kernels {
namespace {

constexpr int64_t kMostRows = 256;

// A block: kColumns columns of y, sixteen for each warp that computes, by kRows rows. One more warp fetches.
template <int kColumns, int kRows>
struct Layout {
  static constexpr int kWarps = kColumns / 16, kComputing = 32 * kWarps, kThreads = kComputing + 32;
  static constexpr int kInner = kRows > 32 ? 128 : 256;  // of a stage, in kMatrices of x and of the weights
  static constexpr int kMatrices = kInner / kBlockColumns;
  static constexpr int kWeight = kColumns * kInner, kX = kRows * kInner;  // elements
  static constexpr int kStage = kWeight + kX;
  // All that one block finds room for where blocks are small; of large ones two run on a processor.
  static constexpr int kStages = std::min(12, (kRows > 32 ? 104 : 216) * 1024 / (2 * kStage));
  static constexpr int kBytes = kStages * kStage * 2 + 1024;  // matrices begin at 1024 bytes
  static constexpr int kOutStride = kColumns + 8;             // of y, on its way out
  static_assert(kRows * kOutStride <= kStages * kStage);
};

template <int kColumns, int kRows>
struct Ring {
  using L = Layout<kColumns, kRows>;
  bf16* memory;
  Barrier* full;
  Barrier* empty;

  __device__ bf16* Weight(int stage) const { return memory + stage % L::kStages * L::kStage; }
  __device__ bf16* X(int stage) const { return Weight(stage) + L::kWeight; }
  __device__ Barrier& Full(int stage) const { return full[stage % L::kStages]; }
  __device__ Barrier& Empty(int stage) const { return empty[stage % L::kStages]; }
  __device__ static int Parity(int stage) { return stage / L::kStages % 2; }
};

// One thread.
template <int kColumns, int kRows>
__device__ void FetchStages(const CUtensorMap& weight, const CUtensorMap& x, int stages, const Ring<kColumns, kRows>& ring) {
  using L = Layout<kColumns, kRows>;
  AwaitLast();
  for (int stage = 0; stage < stages; ++stage) {
    if (stage >= L::kStages) ring.Empty(stage).Wait(ring.Parity(stage) ^ 1);
    ring.Full(stage).Expect(2 * L::kStage);
    FetchBlocks(weight, stage * L::kMatrices, static_cast<int>(blockIdx.x) * kColumns, ring.Weight(stage), ring.Full(stage));
    FetchBlocks(x, stage * L::kMatrices, static_cast<int>(blockIdx.y) * kRows, ring.X(stage), ring.Full(stage));
  }
}

__device__ const bf16* Piece(const bf16* block, int row, int column) { return block + SwizzledPiece(row, column); }

// What a warp multiplies at a time: 32 of the inner dimension of its 16 columns and of all rows.
template <int kRows>
struct Fragments {
  uint32_t weight[2][4], x[kRows / 8][4];  // x[n]: rows 8 n on, the inner dimension's pieces of eight in order

  __device__ void Load(const bf16* weights, const bf16* xs, int column) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) LoadMatrices(weight[half], Piece(weights, lane % 16, column + half * 16 + lane / 16 * 8));
#pragma unroll
    for (int n = 0; n < kRows / 8; ++n) LoadMatrices(x[n], Piece(xs, n * 8 + lane % 8, column + lane / 8 * 8));
  }
  __device__ void MultiplyInto(float (&sum)[kRows / 8][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < kRows / 8; ++n) Multiply(sum[n], weight[half], x[n][2 * half], x[n][2 * half + 1]);
    }
  }
};

// The warps that compute: y^T, columns of y by rows of y.
template <int kColumns, int kRows>
__device__ void Compute(const Projection& p, int stages, const Ring<kColumns, kRows>& ring) {
  using L = Layout<kColumns, kRows>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float sum[kRows / 8][4] = {};
  constexpr int kSteps = L::kInner / 32;
  Fragments<kRows> fragments[2];  // one is loaded while the other is multiplied
  auto load = [&](int stage, int step) {
    const int part = step * 32 / kBlockColumns;
    fragments[step % 2].Load(ring.Weight(stage) + (part * kColumns + warp * 16) * kBlockColumns, ring.X(stage) + part * kRows * kBlockColumns, step * 32 % kBlockColumns);
  };
  ring.Full(0).Wait(0);
  load(0, 0);
  for (int stage = 0; stage < stages; ++stage) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step + 1 < kSteps) {
        load(stage, step + 1);
      } else {
        __syncwarp();  // all of the stage was read
        if (lane == 0) ring.Empty(stage).Arrive();
        if (stage + 1 < stages) {
          ring.Full(stage + 1).Wait(ring.Parity(stage + 1));
          load(stage + 1, 0);
        }
      }
      fragments[step % 2].MultiplyInto(sum);
    }
  }
  auto wait_for_all = [] { asm volatile("bar.sync 1, %0;\n" ::"n"(L::kComputing) : "memory"); };
  wait_for_all();  // everything was fetched and read: the ring is free
  bf16* out = ring.memory;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int column = warp * 16 + lane / 4 + 8 * i;
    const int64_t of_all = static_cast<int64_t>(blockIdx.x) * kColumns + column;
    const float bias = p.bias != nullptr && of_all < p.columns ? __bfloat162float(static_cast<const bf16*>(p.bias)[of_all]) : 0.0f;
#pragma unroll
    for (int n = 0; n < kRows / 8; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        out[(n * 8 + lane % 4 * 2 + r) * L::kOutStride + column] = __float2bfloat16_rn(sum[n][2 * i + r] + bias);
      }
    }
  }
  wait_for_all();
  constexpr int kPieces = kColumns / 8;
  for (int piece = threadIdx.x; piece < kRows * kPieces; piece += L::kComputing) {
    const int64_t row = static_cast<int64_t>(blockIdx.y) * kRows + piece / kPieces;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + piece % kPieces * 8;
    if (row >= p.rows || column >= p.columns) continue;
    *reinterpret_cast<uint4*>(static_cast<bf16*>(p.y) + row * p.columns + column) =
        *reinterpret_cast<const uint4*>(out + piece / kPieces * L::kOutStride + piece % kPieces * 8);
  }
}

template <int kColumns, int kRows>
__global__ void __launch_bounds__(Layout<kColumns, kRows>::kThreads)
    FewRowsProjectionKernel(const __grid_constant__ CUtensorMap weight, const __grid_constant__ CUtensorMap x, Projection p) {
  using L = Layout<kColumns, kRows>;
  extern __shared__ bf16 unaligned[];
  __shared__ Barrier full[L::kStages], empty[L::kStages];
  const Ring<kColumns, kRows> ring{reinterpret_cast<bf16*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023}), full, empty};
  const int stages = static_cast<int>((p.inner + L::kInner - 1) / L::kInner);
  if (threadIdx.x < L::kStages) {
    full[threadIdx.x].Init(1);
    empty[threadIdx.x].Init(L::kWarps);
  }
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  __syncthreads();
  LetNextBegin();
  if (threadIdx.x < L::kComputing) {
    Compute<kColumns, kRows>(p, stages, ring);
  } else if (threadIdx.x == L::kComputing) {
    FetchStages<kColumns, kRows>(weight, x, stages, ring);
  }
}

int64_t Blocks(int64_t size, int64_t of_one) { return (size + of_one - 1) / of_one; }

template <int kColumns, int kRows>
absl::Status Launch(const Projection& run, void* stream) {
  using L = Layout<kColumns, kRows>;
  CUtensorMap weight, x;
  const absl::Status of_weight = DescribeMatrix("FewRowsProjection", run.weight, run.columns, run.inner, run.inner, kColumns, L::kMatrices, &weight);
  const absl::Status of_x = DescribeMatrix("FewRowsProjection", run.x, run.rows, run.inner, run.inner, kRows, L::kMatrices, &x);
  if (!of_weight.ok() || !of_x.ok()) return of_weight.ok() ? of_x : of_weight;
  auto* kernel = FewRowsProjectionKernel<kColumns, kRows>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes);
  const dim3 blocks(static_cast<unsigned>(Blocks(run.columns, kColumns)), static_cast<unsigned>(Blocks(run.rows, kRows)));
  LaunchOverlapping(kernel, blocks, L::kThreads, L::kBytes, stream, weight, x, run);
  return LaunchStatus("FewRowsProjection");
}

struct Block {
  int columns, rows;
  absl::Status (*launch)(const Projection&, void*);
};
constexpr Block kBlocks[] = {{16, 8, Launch<16, 8>},   {16, 16, Launch<16, 16>}, {32, 8, Launch<32, 8>},   {32, 16, Launch<32, 16>},
                             {32, 32, Launch<32, 32>}, {64, 8, Launch<64, 8>},   {64, 16, Launch<64, 16>}, {64, 32, Launch<64, 32>},
                             {64, 64, Launch<64, 64>}};

}  // namespace

std::vector<FewRowsCut> FewRowsCuts(const Projection& run) {
  std::vector<FewRowsCut> cuts;
  if (run.rows > kMostRows || run.columns % 8 != 0 || run.inner % kBlockColumns != 0 || !IsHopper()) return cuts;
  const int64_t processors = DeviceAttribute(cudaDevAttrMultiProcessorCount);
  for (const auto& [columns, rows, launch] : kBlocks) {
    const int64_t blocks = Blocks(run.columns, columns) * Blocks(run.rows, rows);
    if (rows > 8 && rows >= 2 * run.rows) continue;  // half of it would be empty
    // Too small for many, too large for few.
    if (blocks > 4 * processors || (columns * rows > 16 * 8 && 3 * blocks < processors)) continue;
    cuts.push_back({columns, rows});
  }
  return cuts;
}

absl::Status RunFewRowsProjection(const Projection& run, const FewRowsCut& cut, void* stream) {
  if (!IsHopper()) return absl::UnimplementedError("FewRowsProjection: this GPU is no Hopper");
  for (const auto& [columns, rows, launch] : kBlocks) {
    if (columns == cut.columns && rows == cut.rows) return launch(run, stream);
  }
  return absl::InvalidArgumentError(absl::StrCat("FewRowsProjection: there are no blocks of ", cut.columns, " columns and ", cut.rows, " rows"));
}

}  // namespace rein::kernels
