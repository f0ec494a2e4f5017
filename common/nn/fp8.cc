#include "common/nn/fp8.h"

#include <ATen/ATen.h>

#include "common/nn/autograd.h"

namespace rein::nn {
namespace {

struct Fp8Rounding : public Function<Fp8Rounding> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& x) { return ToFp8(x).to(x.scalar_type()); }
  static tensor_list backward(AutogradContext*, tensor_list dy) { return dy; }
};

}  // namespace

// LibTorch makes NaN of what is too large.
at::Tensor ToFp8(const at::Tensor& x) { return x.clamp(-448, 448).to(at::kFloat8_e4m3fn); }

at::Tensor RoundToFp8(const at::Tensor& x) {
  return Records(x) ? Fp8Rounding::apply(x) : Fp8Rounding::forward(nullptr, x);
}

}  // namespace rein::nn
