#include "common/tensor/cuda_runtime.h"

#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

namespace rein::tensor {

std::string CudaVersion() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

std::string NcclVersion() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "unknown";
  return std::to_string(version / 10000) + "." + std::to_string(version % 10000 / 100) + "." +
         std::to_string(version % 100);
}

int CudaDeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

bool CudaIsBroken() {
  cudaError_t error = cudaDeviceSynchronize();
  return error != cudaSuccess && error != cudaErrorNoDevice && error != cudaErrorInsufficientDriver;
}

void* CurrentStream() { return c10::cuda::getCurrentCUDAStream().stream(); }

}  // namespace rein::tensor
