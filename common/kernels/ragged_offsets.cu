#include "common/kernels/ragged_offsets.h"

#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

struct Strides {
  int64_t of[kRaggedTensors];
};

__global__ void RaggedOffsetsKernel(const int32_t* begin, int sequences, int padded, Strides strides,
                                    int32_t* length, int32_t* offset) {
  const int b = blockIdx.x * blockDim.x + threadIdx.x;
  if (b > padded) return;
  const int from = begin[min(b, sequences)];
  if (b < padded) length[b] = begin[min(b + 1, sequences)] - from;
#pragma unroll
  for (int i = 0; i < kRaggedTensors; ++i) {
    offset[i * (padded + 1) + b] = static_cast<int32_t>(from * strides.of[i]);
  }
}

}  // namespace

absl::Status RaggedOffsets(const int32_t* begin, int64_t sequences, int64_t padded,
                           const int64_t (&stride)[kRaggedTensors], int32_t* length, int32_t* offset,
                           void* stream) {
  Strides strides;
  for (int i = 0; i < kRaggedTensors; ++i) strides.of[i] = stride[i];
  RaggedOffsetsKernel<<<static_cast<unsigned>(padded / 128 + 1), 128, 0,
                        static_cast<cudaStream_t>(stream)>>>(
      begin, static_cast<int>(sequences), static_cast<int>(padded), strides, length, offset);
  return LaunchStatus("RaggedOffsets");
}

}  // namespace rein::kernels
