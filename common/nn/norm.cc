#include "common/nn/norm.h"

#include <ATen/ATen.h>

#include "common/nn/leaf.h"

namespace rein::nn {

at::Tensor Norm(const at::Tensor& x, NormKind kind, const NormWeights& weights, double eps) {
  if (kind == NormKind::kRms) return RmsNorm(x, weights.weight, eps);
  if (kind == NormKind::kLayer) {
    at::Tensor weight = weights.weight.defined() ? Leaf(weights.weight) : at::Tensor();
    at::Tensor bias = weights.bias.defined() ? Leaf(weights.bias) : at::Tensor();
    return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
  }
  at::Tensor wide = x.to(at::kFloat);
  at::Tensor normed = wide * (wide.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  return (normed * (Leaf(weights.weight, at::kFloat) + 1)).to(x.scalar_type());
}

SumAndNorm AddNorm(const at::Tensor& x, const at::Tensor& delta, NormKind kind,
                   const NormWeights& weights, double eps) {
  if (kind == NormKind::kRms) return AddRmsNorm(x, delta, weights.weight, eps);
  at::Tensor sum = delta.defined() ? x + delta : x;
  return {sum, Norm(sum, kind, weights, eps)};
}

}  // namespace rein::nn
