// Between LibTorch's tensors and the kernels of common/kernels; only for .cc files of this folder.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "absl/status/status.h"
#include "common/tensor/cuda_runtime.h"

namespace rein::nn {

// Whether the kernels take this tensor: bf16 on a GPU.
inline bool RunsKernels(const at::Tensor& x) {
  return x.is_cuda() && x.scalar_type() == at::kBFloat16;
}

inline void* Stream() { return tensor::CurrentStream(); }

// Throws c10::Error, as LibTorch's own operations do, when a launch was refused.
inline void Launched(const absl::Status& status) {
  TORCH_CHECK(status.ok(), std::string(status.message()));
}

}  // namespace rein::nn
