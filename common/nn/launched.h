// Between LibTorch's tensors and the kernels of common/kernels; only for .cc files of this folder.

#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "absl/status/status.h"
#include "common/kernels/projection.h"
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

// So many bytes at least, where `like` is.
inline void Reserve(int64_t bytes, const at::Tensor& like, at::Tensor& scratch) {
  if (!scratch.defined() || scratch.numel() < bytes) scratch = like.new_empty({bytes}, at::kByte);
}

// y_ME = x_MD weight_ED^T + bias_E, all contiguous; the bias may be undefined.
inline kernels::Projection ProjectionOf(const at::Tensor& x_MD, const at::Tensor& weight_ED, const at::Tensor& bias_E,
                                        at::Tensor& y_ME) {
  kernels::Projection run;
  run.x = x_MD.const_data_ptr();
  run.weight = weight_ED.const_data_ptr();
  if (bias_E.defined()) run.bias = bias_E.const_data_ptr();
  run.y = y_ME.mutable_data_ptr();
  run.rows = x_MD.size(0);
  run.columns = weight_ED.size(0);
  run.inner = weight_ED.size(1);
  return run;
}

}  // namespace rein::nn
