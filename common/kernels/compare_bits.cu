#include "common/kernels/compare_bits.h"

#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

// b null: against zeros.
__global__ void CompareKernel(const uint32_t* a, const uint32_t* b, int64_t words, int* differs) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < words; i += stride) {
    if (a[i] != (b == nullptr ? 0 : b[i])) *differs = 1;
  }
}

absl::StatusOr<bool> Compare(const void* a, const void* b, int64_t bytes, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  int* differs = nullptr;
  int answer = 1;
  cudaMallocAsync(&differs, sizeof(int), on);
  cudaMemsetAsync(differs, 0, sizeof(int), on);
  CompareKernel<<<256, 256, 0, on>>>(static_cast<const uint32_t*>(a), static_cast<const uint32_t*>(b),
                                     bytes / 4, differs);
  cudaMemcpyAsync(&answer, differs, sizeof(int), cudaMemcpyDeviceToHost, on);
  cudaFreeAsync(differs, on);
  cudaStreamSynchronize(on);
  absl::Status status = LaunchStatus("CompareBits");
  if (!status.ok()) return status;
  return answer == 0;
}

}  // namespace

absl::StatusOr<bool> SameBits(const void* a, const void* b, int64_t bytes, void* stream) {
  return Compare(a, b, bytes, stream);
}

absl::StatusOr<bool> AllZero(const void* a, int64_t bytes, void* stream) {
  return Compare(a, nullptr, bytes, stream);
}

}  // namespace rein::kernels
