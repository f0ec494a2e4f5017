// The few questions about GPUs that code outside kernels asks; the CPU build answers that there is none.

#pragma once

#include <string>

namespace rein::tensor {

std::string CudaVersion();  // such as 13.0; empty in the CPU build
std::string NcclVersion();  // such as 2.28.9; empty in the CPU build
int CudaDeviceCount();
bool CudaIsBroken();  // an earlier error that no later call of this process will get rid of
void* CurrentStream();  // LibTorch's cudaStream_t of the current device; null in the CPU build

}  // namespace rein::tensor
