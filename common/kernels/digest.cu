#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "common/kernels/digest.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerRange = 64;
constexpr uint64_t kStride = 0x9E3779B97F4A7C15;

__device__ uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// Word i of a range, its tail padded with zero bytes.
__device__ uint64_t Word(const unsigned char* data, uint64_t i, uint64_t size) {
  if (8 * i + 8 <= size && reinterpret_cast<uintptr_t>(data) % 8 == 0) {
    return reinterpret_cast<const uint64_t*>(data)[i];
  }
  uint64_t word = 0;
  for (uint64_t b = 8 * i; b < min(8 * i + 8, size); ++b) {
    word |= static_cast<uint64_t>(data[b]) << (8 * (b % 8));
  }
  return word;
}

__global__ void DigestKernel(const unsigned char* arena, const ByteRange* ranges,
                             unsigned long long* digests) {
  const ByteRange range = ranges[blockIdx.y];
  const unsigned char* data = arena + range.offset;
  const uint64_t words = (range.size + 7) / 8;
  uint64_t sum = 0;
  for (uint64_t i = blockIdx.x * kThreads + threadIdx.x; i < words; i += gridDim.x * kThreads) {
    sum += Mix(Word(data, i, range.size) ^ ((i + 1) * kStride));
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) sum += Mix(range.size + kStride);
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(~0u, sum, offset);
  if (threadIdx.x % 32 == 0) atomicAdd(&digests[blockIdx.y], sum);  // sums commute: order is free
}

}  // namespace

absl::Status DigestRanges(const void* arena, const std::vector<ByteRange>& ranges, void* stream,
                          std::vector<uint64_t>* digests) {
  digests->assign(ranges.size(), 0);
  if (ranges.empty()) return absl::OkStatus();
  auto s = static_cast<cudaStream_t>(stream);
  ByteRange* device_ranges = nullptr;
  unsigned long long* device_digests = nullptr;
  const size_t range_bytes = ranges.size() * sizeof(ByteRange), sum_bytes = ranges.size() * 8;
  cudaError_t error = cudaMallocAsync(&device_ranges, range_bytes, s);
  if (error == cudaSuccess) error = cudaMallocAsync(&device_digests, sum_bytes, s);
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(device_ranges, ranges.data(), range_bytes, cudaMemcpyHostToDevice, s);
  }
  if (error == cudaSuccess) error = cudaMemsetAsync(device_digests, 0, sum_bytes, s);
  if (error == cudaSuccess) {
    DigestKernel<<<dim3(kBlocksPerRange, ranges.size()), kThreads, 0, s>>>(
        static_cast<const unsigned char*>(arena), device_ranges, device_digests);
    error = cudaGetLastError();
  }
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(digests->data(), device_digests, sum_bytes, cudaMemcpyDeviceToHost, s);
  }
  if (error == cudaSuccess) error = cudaStreamSynchronize(s);
  if (device_ranges != nullptr) cudaFreeAsync(device_ranges, s);
  if (device_digests != nullptr) cudaFreeAsync(device_digests, s);
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("DigestRanges: ", cudaGetErrorString(error)));
}

}  // namespace rein::kernels
