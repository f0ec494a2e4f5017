// Whether the current device runs what is built for sm_90a alone.

#pragma once

#include <cuda_runtime_api.h>

namespace rein::kernels {

inline bool IsHopper() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return major == 9 && minor == 0;
}

}  // namespace rein::kernels
