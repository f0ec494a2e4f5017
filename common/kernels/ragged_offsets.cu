#include "common/kernels/ragged_offsets.h"

#include "common/kernels/launch_status.h"
#include "common/kernels/ragged.cuh"

namespace rein::kernels {
namespace {

struct Tensors {
  int64_t stride[kRaggedTensors];
  bool of_keys[kRaggedTensors];
};

__device__ int Begin(const Ragged& r, int b, int sequences) {
  return b < sequences ? r.begin[b] : r.begin[sequences - 1] + LengthOf(r, sequences - 1);
}

__global__ void RaggedOffsetsKernel(Ragged query, Ragged key, int sequences, int padded, Tensors tensors,
                                    int32_t* query_length, int32_t* key_length, int32_t* offset) {
  const int b = blockIdx.x * blockDim.x + threadIdx.x;
  if (b > padded) return;
  const int from_query = Begin(query, b, sequences), from_key = Begin(key, b, sequences);
  if (b < padded) {
    query_length[b] = b < sequences ? LengthOf(query, b) : 0;
    key_length[b] = b < sequences ? LengthOf(key, b) : 0;
  }
#pragma unroll
  for (int i = 0; i < kRaggedTensors; ++i) {
    const int from = tensors.of_keys[i] ? from_key : from_query;
    offset[i * (padded + 1) + b] = static_cast<int32_t>(from * tensors.stride[i]);
  }
}

}  // namespace

absl::Status RaggedOffsets(const Ragged& query, const Ragged& key, int64_t sequences, int64_t padded,
                           const int64_t (&stride)[kRaggedTensors], const bool (&of_keys)[kRaggedTensors],
                           int32_t* query_length, int32_t* key_length, int32_t* offset, void* stream) {
  Tensors tensors;
  for (int i = 0; i < kRaggedTensors; ++i) {
    tensors.stride[i] = stride[i];
    tensors.of_keys[i] = of_keys[i];
  }
  RaggedOffsetsKernel<<<static_cast<unsigned>(padded / 128 + 1), 128, 0,
                        static_cast<cudaStream_t>(stream)>>>(
      query, key, static_cast<int>(sequences), static_cast<int>(padded), tensors, query_length, key_length,
      offset);
  return LaunchStatus("RaggedOffsets");
}

}  // namespace rein::kernels
