// Kernels of a step of decoding take a few microseconds each: one may begin before the one before it in its stream is done
// (programmatic dependent launch, sm_90), which hides what a launch takes.
//
// A kernel launched by LaunchOverlapping() calls AwaitLast() before it reads or writes device memory.

#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "common/kernels/hopper.h"

namespace rein::kernels {

// In a kernel: from here on the next may begin, if it is launched by LaunchOverlapping().
__device__ inline void LetNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

// Until the kernel before is done and what it wrote can be read.
__device__ inline void AwaitLast() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

// What goes wrong is told by LaunchStatus().
template <typename... Parameters, typename... Arguments>
void LaunchOverlapping(void (*kernel)(Parameters...), dim3 blocks, int threads, int shared_bytes, void* stream, Arguments&&... arguments) {
  // A processor cannot give shared memory to the next kernel while one runs that took it as cache.
  cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &overlap;
  config.numAttrs = DeviceAttribute(cudaDevAttrComputeCapabilityMajor) >= 9 ? 1 : 0;
  static_cast<void>(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

}  // namespace rein::kernels
