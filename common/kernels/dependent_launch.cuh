// A chain of short kernels loses microseconds between each two. On Hopper a kernel may be placed while the one ahead
// of it in the stream still runs (CUDA's programmatic dependent launch):
//
//   __global__ void Kernel(Args args) {
//     AwaitPrevious();  // before it touches memory
//     ...
//   }
//   LaunchDependent(Kernel, grid, block, shared_bytes, stream, args);

#pragma once

#include <cuda_runtime.h>

#include "common/kernels/hopper.h"

namespace rein::kernels {

// Returns once all that is ahead in the stream is done and its writes are seen; lets the next kernel be placed.
__device__ inline void AwaitPrevious() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

template <typename... Parameters, typename... Arguments>
void LaunchDependent(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                     cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = IsHopper() ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);  // an error is found by LaunchStatus()
}

}  // namespace rein::kernels
