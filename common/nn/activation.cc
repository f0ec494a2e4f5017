#include "common/nn/activation.h"

#include <ATen/ATen.h>

#include <optional>

#include "common/kernels/gate.h"
#include "common/nn/autograd.h"
#include "common/nn/launched.h"

namespace rein::nn {
namespace {

// What the kernel makes of a gate; nothing for one that it does not know.
std::optional<kernels::GateRule> KernelRule(const Gate& gate) {
  kernels::GateRule rule;
  rule.limit = static_cast<float>(gate.limit);
  rule.slope = static_cast<float>(gate.slope);
  switch (gate.activation) {
    case Activation::kSilu:
      return rule;
    case Activation::kGelu:
      rule.activation = kernels::GateActivation::kGelu;
      return rule;
    case Activation::kGeluTanh:
      rule.activation = kernels::GateActivation::kGeluTanh;
      return rule;
    case Activation::kRelu:
      rule.activation = kernels::GateActivation::kRelu;
      return rule;
    case Activation::kReluSquared:
      break;
  }
  return std::nullopt;
}

at::Tensor GateByKernel(const at::Tensor& gate_up, const kernels::GateRule& rule) {
  at::Tensor in = gate_up.contiguous(), y = at::empty({in.size(0), in.size(1) / 2}, in.options());
  Launched(kernels::RunGate(rule, in.const_data_ptr(), y.mutable_data_ptr(), y.size(0), y.size(1), Stream()));
  return y;
}

struct GateFunction : public Function<GateFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up, const kernels::GateRule& rule) {
    Store(context, "gate_up", gate_up);
    context->saved_data["activation"] = static_cast<int64_t>(rule.activation);
    context->saved_data["limit"] = static_cast<double>(rule.limit);
    context->saved_data["slope"] = static_cast<double>(rule.slope);
    return GateByKernel(gate_up, rule);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    const kernels::GateRule rule{static_cast<kernels::GateActivation>(context->saved_data["activation"].toInt()),
                                 static_cast<float>(context->saved_data["limit"].toDouble()),
                                 static_cast<float>(context->saved_data["slope"].toDouble())};
    at::Tensor gate_up = Stored(context, "gate_up").contiguous(), dy_TF = dy[0].contiguous(), d = at::empty_like(gate_up);
    Launched(kernels::RunGateGradient(rule, gate_up.const_data_ptr(), dy_TF.const_data_ptr(), d.mutable_data_ptr(),
                                      dy_TF.size(0), dy_TF.size(1), Stream()));
    return {d, at::Tensor()};
  }
};

at::Tensor PlainSilu(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(1) / 2;
  return at::silu(gate_up.narrow(1, 0, width)).mul_(gate_up.narrow(1, width, width));
}

struct SiluFunction : public Function<SiluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    Store(context, "gate_up", gate_up);
    return PlainSilu(gate_up);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor gate_up = Stored(context, "gate_up").contiguous();
    const int64_t width = gate_up.size(1) / 2;
    at::Tensor d = at::empty_like(gate_up);
    at::Tensor gate = gate_up.narrow(1, 0, width), up = gate_up.narrow(1, width, width);
    at::Tensor d_up = d.narrow(1, width, width);
    at::mul_out(d_up, dy[0], at::silu(gate));
    d.narrow(1, 0, width).copy_(at::silu_backward(dy[0].mul(up), gate));
    return {d};
  }
};

}  // namespace

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
  if (auto rule = KernelRule(gate); rule.has_value() && RunsKernels(gate_up) && gate_up.size(1) % 16 == 0) {
    return Records(gate_up) ? GateFunction::apply(gate_up, *rule) : GateByKernel(gate_up, *rule);
  }
  if (gate.activation == Activation::kSilu && gate.limit == 0) {
    return Records(gate_up) ? SiluFunction::apply(gate_up) : PlainSilu(gate_up);
  }
  const int64_t width = gate_up.size(1) / 2;
  at::Tensor g = gate_up.narrow(1, 0, width), up = gate_up.narrow(1, width, width);
  if (gate.limit == 0) return Activate(g, gate.activation) * up;
  g = g.clamp_max(gate.limit);
  return (up.clamp(-gate.limit, gate.limit) + 1) * (g * at::sigmoid(g * gate.slope));
}

}  // namespace rein::nn
