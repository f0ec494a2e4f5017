#include "common/nn/rotary.h"

#include <ATen/ATen.h>

#include "common/nn/autograd.h"

namespace rein::nn {
namespace {

// The two members of each pair among the rotated dims.
std::pair<at::Tensor, at::Tensor> Pairs(const at::Tensor& x_THR, bool interleaved) {
  const int64_t half = x_THR.size(2) / 2;
  if (!interleaved) return {x_THR.narrow(2, 0, half), x_THR.narrow(2, half, half)};
  at::Tensor pairs = x_THR.unflatten(2, {half, 2});
  return {pairs.select(3, 0), pairs.select(3, 1)};
}

// `sign` -1 turns back.
at::Tensor Turn(const at::Tensor& x_THC, const Rotary& rotary, double sign) {
  const int64_t rotated = 2 * rotary.cos.size(1), dims = x_THC.size(2);
  at::Tensor x_fp32 = x_THC.to(at::kFloat);
  at::Tensor cos = rotary.cos.unsqueeze(1), sin = rotary.sin.unsqueeze(1);
  at::Tensor out = at::empty_like(x_fp32, at::MemoryFormat::Contiguous);
  auto [first, second] = Pairs(x_fp32.narrow(2, 0, rotated), rotary.interleaved);
  auto [out_first, out_second] = Pairs(out.narrow(2, 0, rotated), rotary.interleaved);
  at::mul_out(out_first, first, cos).addcmul_(second, sin, -sign);
  at::mul_out(out_second, second, cos).addcmul_(first, sin, sign);
  if (rotated < dims) {
    out.narrow(2, rotated, dims - rotated).copy_(x_fp32.narrow(2, rotated, dims - rotated));
  }
  return out.to(x_THC.scalar_type());
}

struct RotaryFunction : public Function<RotaryFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_THC,
                            const Rotary& rotary) {
    Store(context, "cos", rotary.cos);
    Store(context, "sin", rotary.sin);
    context->saved_data["interleaved"] = rotary.interleaved;
    return Turn(x_THC, rotary, 1);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    const Rotary rotary{Stored(context, "cos"), Stored(context, "sin"),
                        context->saved_data["interleaved"].toBool()};
    return {Turn(dy[0], rotary, -1), at::Tensor()};
  }
};

}  // namespace

at::Tensor Rotate(const at::Tensor& x_THC, const Rotary& rotary) {
  if (!rotary.defined()) return x_THC;
  return Records(x_THC) ? RotaryFunction::apply(x_THC, rotary) : Turn(x_THC, rotary, 1);
}

}  // namespace rein::nn
