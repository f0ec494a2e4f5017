// Turns the outcome of a kernel launch into a status that names the kernel; only for .cu files.

#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace rein::kernels {

inline absl::Status LaunchStatus(const char* kernel) {
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(kernel, ": launch failed: ", cudaGetErrorString(error)));
}

}  // namespace rein::kernels
