#include "common/nn/norm.h"

#include <ATen/ATen.h>

#include "common/nn/autograd.h"
#include "common/nn/launched.h"
#include "common/nn/leaf.h"

namespace rein::nn {
namespace {

at::Tensor InverseRms(const at::Tensor& x_fp32, double eps) {
  return x_fp32.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
}

// dx of x -> normed * weight, and the gradient of the weight added.
at::Tensor RmsNormBackward(const at::Tensor& x, const at::Tensor& inverse, const at::Tensor& weight,
                           at::Tensor weight_grad, const at::Tensor& dy) {
  at::Tensor normed = x.to(at::kFloat).mul_(inverse);
  at::Tensor dy_fp32 = dy.to(at::kFloat);
  if (weight_grad.defined()) {
    weight_grad.add_(dy_fp32.mul(normed).reshape({-1, weight_grad.size(0)}).sum(0));
  }
  at::Tensor g = dy_fp32.mul(weight);
  at::Tensor mean = g.mul(normed).mean(-1, /*keepdim=*/true);
  return g.sub_(normed.mul_(mean)).mul_(inverse).to(x.scalar_type());
}

struct RmsNormFunction : public Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Weight& weight,
                            double eps) {
    at::Tensor x_fp32 = x.to(at::kFloat);
    at::Tensor inverse = InverseRms(x_fp32, eps);
    Store(context, "x", x);
    Store(context, "inverse", inverse);
    Store(context, "weight", weight.value);
    Store(context, "grad", weight.grad);
    return x_fp32.mul(inverse).to(x.scalar_type()).mul_(weight.value);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    return {RmsNormBackward(Stored(context, "x"), Stored(context, "inverse"),
                            Stored(context, "weight"), Stored(context, "grad"), dy[0]),
            at::Tensor(), at::Tensor()};
  }
};

at::Tensor PlainRmsNorm(const at::Tensor& x, const Weight& weight_D, double eps) {
  if (Records(x)) return RmsNormFunction::apply(x, weight_D, eps);
  at::Tensor x_fp32 = x.to(at::kFloat);
  return x_fp32.mul(InverseRms(x_fp32, eps)).to(x.scalar_type()).mul_(weight_D.value);
}

at::Tensor PlainNorm(const at::Tensor& x, NormKind kind, const NormWeights& weights, double eps) {
  if (kind == NormKind::kRms) return PlainRmsNorm(x, weights.weight, eps);
  if (kind == NormKind::kLayer) {
    at::Tensor weight = weights.weight.defined() ? Leaf(weights.weight) : at::Tensor();
    at::Tensor bias = weights.bias.defined() ? Leaf(weights.bias) : at::Tensor();
    return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
  }
  at::Tensor wide = x.to(at::kFloat);
  at::Tensor normed = wide * (wide.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  return (normed * (Leaf(weights.weight, at::kFloat) + 1)).to(x.scalar_type());
}

// What a backward pass wants of each row: 1 / sqrt(...), and of a LayerNorm the mean.
struct RowStats {
  at::Tensor inverse, mean;

  RowStats(const at::Tensor& x, NormKind kind) {
    inverse = at::empty({x.numel() / x.size(-1)}, x.options().dtype(at::kFloat));
    if (kind == NormKind::kLayer) mean = at::empty_like(inverse);
  }
};

// By kernel: {sum, norm}, or {norm} when nothing is added.
tensor_list FusedAddNorm(const at::Tensor& x, const at::Tensor& delta, NormKind kind, const NormWeights& weights,
                         double eps, RowStats* stats) {
  at::Tensor in = x.contiguous(), add = delta.defined() ? delta.contiguous() : delta;
  at::Tensor sum = add.defined() ? at::empty_like(in) : in, y = at::empty_like(in);
  kernels::AddNorm norm;
  norm.kind = kind;
  norm.x = in.const_data_ptr();
  if (weights.weight.defined()) norm.weight = weights.weight.value.const_data_ptr();
  if (weights.bias.defined()) norm.bias = weights.bias.value.const_data_ptr();
  norm.y = y.mutable_data_ptr();
  norm.columns = in.size(-1);
  norm.rows = in.numel() / norm.columns;
  norm.epsilon = static_cast<float>(eps);
  if (stats != nullptr) {
    norm.inverse = stats->inverse.mutable_data_ptr<float>();
    if (stats->mean.defined()) norm.mean = stats->mean.mutable_data_ptr<float>();
  }
  if (add.defined()) {
    norm.delta = add.const_data_ptr();
    norm.sum = sum.mutable_data_ptr();
  }
  Launched(kernels::RunAddNorm(norm, Stream()));
  if (!add.defined()) return {y};
  return {sum, y};
}

// Functions take no undefined tensors: without a delta, x stands in its place and `added` is false.
struct FusedAddNormFunction : public Function<FusedAddNormFunction> {
  static tensor_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& delta,
                             bool added, NormKind kind, const NormWeights& weights, double eps) {
    RowStats stats(x, kind);
    tensor_list out = FusedAddNorm(x, added ? delta : at::Tensor(), kind, weights, eps, &stats);
    context->saved_data["kind"] = static_cast<int64_t>(kind);
    Store(context, "sum", added ? out[0].detach() : x);
    Store(context, "inverse", stats.inverse);
    Store(context, "mean", stats.mean);
    Store(context, "weight", weights.weight.value);
    Store(context, "grad", weights.weight.grad);
    Store(context, "bias_grad", weights.bias.grad);
    return out;
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    const bool added = dy.size() == 2;
    at::Tensor sum = Stored(context, "sum").contiguous(), grad = Stored(context, "grad"),
               bias_grad = Stored(context, "bias_grad"), weight = Stored(context, "weight");
    at::Tensor dnorm = dy.back().contiguous(),
               dsum = added && dy[0].defined() ? dy[0].contiguous() : at::Tensor();
    at::Tensor inverse = Stored(context, "inverse"), mean = Stored(context, "mean"), dx = at::empty_like(sum), scratch;
    kernels::AddNormGradient g;
    g.kind = static_cast<NormKind>(context->saved_data["kind"].toInt());
    g.columns = sum.size(-1);
    g.rows = sum.numel() / g.columns;
    g.sum = sum.const_data_ptr();
    if (weight.defined()) g.weight = weight.const_data_ptr();
    g.inverse = inverse.const_data_ptr<float>();
    if (mean.defined()) g.mean = mean.const_data_ptr<float>();
    g.dy = dnorm.const_data_ptr();
    if (dsum.defined()) g.dsum = dsum.const_data_ptr();
    g.dx = dx.mutable_data_ptr();
    if (grad.defined() || bias_grad.defined()) {
      scratch = at::empty({kernels::kNormGradientBlocks, 2, g.columns}, inverse.options());
      g.scratch = scratch.mutable_data_ptr<float>();
    }
    if (grad.defined()) g.dweight = grad.mutable_data_ptr<float>();
    if (bias_grad.defined()) g.dbias = bias_grad.mutable_data_ptr<float>();
    Launched(kernels::RunAddNormGradient(g, Stream()));
    return {dx, added ? dx : at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

bool KernelTakes(const at::Tensor& x) { return RunsKernels(x) && kernels::NormTakes(x.size(-1)); }

}  // namespace

at::Tensor Norm(const at::Tensor& x, NormKind kind, const NormWeights& weights, double eps) {
  return KernelTakes(x) ? AddNorm(x, {}, kind, weights, eps).norm : PlainNorm(x, kind, weights, eps);
}

at::Tensor RmsNorm(const at::Tensor& x, const Weight& weight_D, double eps) {
  return Norm(x, NormKind::kRms, {weight_D, {}}, eps);
}

SumAndNorm AddNorm(const at::Tensor& x, const at::Tensor& delta, NormKind kind,
                   const NormWeights& weights, double eps) {
  const bool added = delta.defined();
  if (KernelTakes(x)) {
    tensor_list out = Records(x) ? FusedAddNormFunction::apply(x, added ? delta : x, added, kind, weights, eps)
                                 : FusedAddNorm(x, delta, kind, weights, eps, nullptr);
    return {added ? out[0] : x, out.back()};
  }
  at::Tensor sum = added ? x + delta : x;
  return {sum, PlainNorm(sum, kind, weights, eps)};
}

}  // namespace rein::nn
