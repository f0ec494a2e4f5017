// A process that makes an error of CUDA, for cuda_error_test.cc: the test binary called again.

#pragma once

namespace rein::gpu {

// Body of the process: prints what the step that fails says, then what the next one says.
int CudaErrorMain();

}  // namespace rein::gpu
