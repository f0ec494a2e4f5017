// What the launches of attention's kernels share; only for .cu files.

#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/kernels/attention.h"

namespace rein::kernels {

// Calls `body` with the head dim, whether there is a rule, and whether keys are fp8, as compile-time constants.
template <typename Body>
absl::Status WithShape(const AttentionForward& run, Body body) {
  if (run.keys.fp8 && !run.rule.plain()) {
    return absl::InvalidArgumentError("attention: keys in fp8 are read without window, cap, slopes and sinks only");
  }
  auto with_dim = [&](auto dim) {
    if (run.keys.fp8) return body(dim, std::false_type(), std::true_type());
    return run.rule.plain() ? body(dim, std::false_type(), std::false_type()) : body(dim, std::true_type(), std::false_type());
  };
  switch (run.head_dim) {
    case 32: return with_dim(std::integral_constant<int, 32>());
    case 64: return with_dim(std::integral_constant<int, 64>());
    case 96: return with_dim(std::integral_constant<int, 96>());
    case 128: return with_dim(std::integral_constant<int, 128>());
    case 256: return with_dim(std::integral_constant<int, 256>());
  }
  return absl::InvalidArgumentError(
      absl::StrCat("attention: head_dim is ", run.head_dim, ", want 32, 64, 96, 128 or 256"));
}

// Lets a kernel take more shared memory than blocks get unasked.
template <typename Kernel>
absl::Status Widen(const char* name, Kernel kernel, int bytes) {
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(name, ": this GPU refuses ", bytes,
                                                    " bytes of shared memory per block: ",
                                                    cudaGetErrorString(error)));
}

}  // namespace rein::kernels
