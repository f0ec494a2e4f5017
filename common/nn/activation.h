// What stands between the two projections of a feed-forward layer.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::nn {

enum class Activation { kSilu, kGelu, kGeluTanh, kRelu, kReluSquared };

at::Tensor Activate(const at::Tensor& x, Activation activation);

// How gate and up, the halves of [T, 2F], become [T, F].
struct Gate {
  Activation activation = Activation::kSilu;
  // Above 0 (gpt-oss): gate' = min(gate, limit), up' = clamp(up, -limit, limit) and the result is
  // (up' + 1) gate' sigmoid(slope gate').
  double limit = 0;
  double slope = 1;
};

// activation(gate) * up (arXiv 2002.05202). bf16 on a GPU by the kernel of kernels/gate.h.
at::Tensor Gated(const at::Tensor& gate_up, const Gate& gate);

}  // namespace rein::nn
