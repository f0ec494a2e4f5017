// The few questions about GPUs that code outside kernels asks; the CPU build answers that there is none.

#pragma once

#include <cstdint>
#include <string>

namespace rein::tensor {

std::string CudaVersion();  // such as 13.0; empty in the CPU build
std::string NcclVersion();  // such as 2.28.9; empty in the CPU build
int CudaDeviceCount();
bool CudaIsBroken();  // an earlier error that no later call of this process will get rid of
struct GpuIdentity {
  std::string name;    // such as NVIDIA H200; empty without a GPU
  std::string id;      // the driver's UUID
  std::string cublas;  // version of the library
};
GpuIdentity CurrentGpu();
int64_t PeakDeviceBytes();  // that LibTorch's allocator has reserved at most; 0 without a GPU
void* CurrentStream();  // LibTorch's cudaStream_t of the current device; null in the CPU build

}  // namespace rein::tensor
