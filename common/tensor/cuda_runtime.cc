#include "common/tensor/cuda_runtime.h"

#include <ATen/DeviceAccelerator.h>
#include <c10/cuda/CUDAStream.h>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include "absl/strings/str_cat.h"

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

GpuIdentity CurrentGpu() {
  cudaDeviceProp properties;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaGetDeviceProperties(&properties, device) != cudaSuccess) return {};
  GpuIdentity gpu{.name = properties.name, .id = "GPU", .cublas = ""};
  for (int i = 0; i < 16; ++i) {
    const bool dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
    absl::StrAppend(&gpu.id, dash ? "-" : "", absl::Hex(static_cast<uint8_t>(properties.uuid.bytes[i]), absl::kZeroPad2));
  }
  gpu.cublas = absl::StrCat(cublasLtGetVersion());
  return gpu;
}

int64_t PeakDeviceBytes() {
  if (!at::getDeviceAllocator(at::kCUDA)->initialized()) return 0;
  return at::accelerator::getDeviceStats(0).reserved_bytes[0].peak;
}

void* CurrentStream() { return c10::cuda::getCurrentCUDAStream().stream(); }

}  // namespace rein::tensor
