// What the current GPU is: a Hopper runs what is built for sm_90a alone, others (Ampere and later) the portable kernels.
//
// REIN_PORTABLE_KERNELS=1 makes a Hopper look like another GPU with as little shared memory as any of them has (99 KiB a
// block): to test and to time the portable path.

#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>

namespace rein::kernels {

inline int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

inline bool TreatAsPortable() {
  static const bool portable = std::getenv("REIN_PORTABLE_KERNELS") != nullptr;
  return portable;
}

inline bool IsHopper() {
  return !TreatAsPortable() && DeviceAttribute(cudaDevAttrComputeCapabilityMajor) == 9 &&
         DeviceAttribute(cudaDevAttrComputeCapabilityMinor) == 0;
}

// Bytes of shared memory that a block may ask for.
inline int SharedMemoryOfBlock() {
  const int most = DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return TreatAsPortable() ? std::min(most, 99 * 1024) : most;
}

}  // namespace rein::kernels
