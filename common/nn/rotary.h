// Rotary positions (RoPE, arXiv 2104.09864): pairs of dims turn by an angle of the token's position.
//
// T packed tokens, H heads, C head dim, R rotated dims (the first ones of a head).

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::nn {

// The angle of each pair of each token: fp32 [T, R/2].
struct Rotary {
  at::Tensor cos, sin;
  bool interleaved = false;  // pairs are (2i, 2i + 1); else (i, i + R/2)

  bool defined() const { return cos.defined(); }
};

// x_THC with its first R dims turned; the rest passes. Computed in fp32. Differentiable by x.
at::Tensor Rotate(const at::Tensor& x_THC, const Rotary& rotary);

}  // namespace rein::nn
