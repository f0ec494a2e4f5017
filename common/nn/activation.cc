#include "common/nn/activation.h"

#include <ATen/ATen.h>

#include "common/nn/functions.h"

namespace rein::nn {

at::Tensor Activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kGelu:
      return at::gelu(x, "none");
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kReluSquared:
      return at::relu(x).square();
  }
  return x;
}

at::Tensor Gated(const at::Tensor& gate_up, const Gate& gate) {
  if (gate.activation == Activation::kSilu && gate.limit == 0) return GatedSilu(gate_up);
  const int64_t width = gate_up.size(1) / 2;
  at::Tensor g = gate_up.narrow(1, 0, width), up = gate_up.narrow(1, width, width);
  if (gate.limit == 0) return Activate(g, gate.activation) * up;
  g = g.clamp_max(gate.limit);
  return (up.clamp(-gate.limit, gate.limit) + 1) * (g * at::sigmoid(g * gate.slope));
}

}  // namespace rein::nn
