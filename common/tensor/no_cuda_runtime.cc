#include "common/tensor/cuda_runtime.h"

namespace rein::tensor {

std::string CudaVersion() { return ""; }
std::string NcclVersion() { return ""; }
int CudaDeviceCount() { return 0; }
bool CudaIsBroken() { return false; }
GpuIdentity CurrentGpu() { return {}; }
int64_t PeakDeviceBytes() { return 0; }
void* CurrentStream() { return nullptr; }

}  // namespace rein::tensor
