// Hopper's copy engine (TMA) fetches matrices into shared memory; only for .cu files built for sm_90a.
//
// There a matrix stands in blocks of kBlockColumns columns, one behind the other: rows of 128 bytes whose eight 16-byte pieces
// are exchanged by the row's number (the 128-byte swizzle), which wgmma reads, and ldmatrix without conflicts. A block
// begins at 1024 bytes.

#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/kernels/barrier.cuh"

namespace rein::kernels {

inline constexpr int kBlockColumns = 64;

// Where a block has eight columns of a row, from a multiple of eight on: elements from its beginning.
__device__ inline int SwizzledPiece(int row, int column) { return row * kBlockColumns + ((column / 8) ^ (row % 8)) * 8; }

// By one thread: rows from `row` on of the blocks from `first_block` on, as many of both as the map's boxes hold. The barrier
// counts the bytes. An instruction takes it a tenth of a microsecond, whatever the size: few large ones are best.
__device__ inline void FetchBlocks(const CUtensorMap& matrix, int first_block, int row, __nv_bfloat16* to, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];\n" ::"r"(
          SharedAddress(to)),
      "l"(&matrix), "r"(SharedAddress(&barrier.state)), "r"(0), "r"(row), "r"(first_block)
      : "memory");
}

// The same of what nobody reads again soon: it leaves the L2 cache before anything else.
__device__ inline void FetchBlocksOnce(const CUtensorMap& matrix, int first_block, int row, __nv_bfloat16* to, Barrier& barrier) {
  constexpr uint64_t kEvictFirst = 0x12F0000000000000;  // as createpolicy.fractional makes it
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], "
      "%6;\n" ::"r"(SharedAddress(to)),
      "l"(&matrix), "r"(SharedAddress(&barrier.state)), "r"(0), "r"(row), "r"(first_block), "l"(kEvictFirst)
      : "memory");
}

// A bf16 matrix whose rows are `stride` elements apart, read in boxes of so many rows and blocks; what is outside of it
// reads as zeros. The pointer and the rows are 16-byte aligned, columns a multiple of kBlockColumns. Errors name the kernel.
inline absl::Status DescribeMatrix(const char* kernel, const void* matrix, int64_t rows, int64_t columns, int64_t stride, int box_rows, int box_blocks,
                                   CUtensorMap* map) {
  using Encode = CUresult(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                          const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                          CUtensorMapFloatOOBfill);
  static Encode* const encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    return error == cudaSuccess ? reinterpret_cast<Encode*>(found) : nullptr;
  }();
  if (encode == nullptr) return absl::UnimplementedError(absl::StrCat(kernel, ": the driver has no cuTensorMapEncodeTiled"));
  const cuuint64_t size[] = {kBlockColumns, static_cast<cuuint64_t>(rows), static_cast<cuuint64_t>(columns / kBlockColumns)},
                   strides[] = {static_cast<cuuint64_t>(2 * stride), 2 * kBlockColumns};
  const cuuint32_t box[] = {kBlockColumns, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(box_blocks)}, step[] = {1, 1, 1};
  const CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(matrix), size, strides, box, step,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(kernel, ": cuTensorMapEncodeTiled says ", static_cast<int>(result), " of a matrix of ", rows, " x ", columns,
                                          " with ", stride, " between rows"));
}

}  // namespace rein::kernels
