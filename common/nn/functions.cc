#include "common/nn/functions.h"

#include <ATen/ATen.h>

#include "common/nn/autograd.h"

namespace rein::nn {
namespace {

struct EmbeddingFunction : public Function<EmbeddingFunction> {
  // `anchor` only makes the output part of the graph: the table is not a graph leaf.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& anchor,
                            const at::Tensor& token_T, const Weight& table_VD) {
    context->saved_data["anchored"] = anchor.defined();
    Store(context, "token", token_T);
    Store(context, "grad", table_VD.grad);
    return table_VD.value.index_select(0, token_T);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor grad = Stored(context, "grad");
    if (grad.defined()) grad.index_add_(0, Stored(context, "token"), dy[0].to(at::kFloat));
    return {at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor InverseRms(const at::Tensor& x_fp32, double eps) {
  return x_fp32.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
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
    at::Tensor x = Stored(context, "x");
    at::Tensor inverse = Stored(context, "inverse");
    at::Tensor normed = x.to(at::kFloat).mul_(inverse);
    at::Tensor dy_fp32 = dy[0].to(at::kFloat);
    at::Tensor grad = Stored(context, "grad");
    if (grad.defined()) {
      grad.add_(dy_fp32.mul(normed).reshape({-1, grad.size(0)}).sum(0));
    }
    at::Tensor g = dy_fp32.mul(Stored(context, "weight"));
    at::Tensor mean = g.mul(normed).mean(-1, /*keepdim=*/true);
    at::Tensor dx = g.sub_(normed.mul_(mean)).mul_(inverse).to(x.scalar_type());
    return {dx, at::Tensor(), at::Tensor()};
  }
};

struct ProjectionFunction : public Function<ProjectionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD,
                            const Weight& weight_ED, const Weight& bias_E) {
    Store(context, "x", x_TD);
    Store(context, "weight", weight_ED.value);
    Store(context, "weight_grad", weight_ED.grad);
    Store(context, "bias_grad", bias_E.grad);
    return at::linear(x_TD, weight_ED.value, bias_E.value);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor dy_TE = dy[0].contiguous();
    AccumulateOuter(Stored(context, "weight_grad"), dy_TE, Stored(context, "x"));
    at::Tensor bias_grad = Stored(context, "bias_grad");
    if (bias_grad.defined()) bias_grad.add_(dy_TE.sum(0, /*keepdim=*/false, at::kFloat));
    return {at::mm(dy_TE, Stored(context, "weight")), at::Tensor(), at::Tensor()};
  }
};

// `sign` -1 turns back.
at::Tensor Rotate(const at::Tensor& x_THC, const at::Tensor& cos_TC2, const at::Tensor& sin_TC2,
                  double sign) {
  const int64_t half = x_THC.size(2) / 2;
  at::Tensor x_fp32 = x_THC.to(at::kFloat);
  at::Tensor first = x_fp32.narrow(2, 0, half), second = x_fp32.narrow(2, half, half);
  at::Tensor cos = cos_TC2.unsqueeze(1), sin = sin_TC2.unsqueeze(1);
  at::Tensor out = at::empty_like(x_fp32, at::MemoryFormat::Contiguous);
  at::Tensor out_first = out.narrow(2, 0, half), out_second = out.narrow(2, half, half);
  at::mul_out(out_first, first, cos).addcmul_(second, sin, -sign);
  at::mul_out(out_second, second, cos).addcmul_(first, sin, sign);
  return out.to(x_THC.scalar_type());
}

struct RotaryFunction : public Function<RotaryFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_THC,
                            const at::Tensor& cos_TC2, const at::Tensor& sin_TC2) {
    Store(context, "cos", cos_TC2);
    Store(context, "sin", sin_TC2);
    return Rotate(x_THC, cos_TC2, sin_TC2, 1);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    return {Rotate(dy[0], Stored(context, "cos"), Stored(context, "sin"), -1), at::Tensor(),
            at::Tensor()};
  }
};

struct GatedSiluFunction : public Function<GatedSiluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    Store(context, "gate_up", gate_up);
    const int64_t width = gate_up.size(1) / 2;
    return at::silu(gate_up.narrow(1, 0, width)).mul_(gate_up.narrow(1, width, width));
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor gate_up = Stored(context, "gate_up");
    const int64_t width = gate_up.size(1) / 2;
    at::Tensor gate = gate_up.narrow(1, 0, width), up = gate_up.narrow(1, width, width);
    at::Tensor d = at::empty_like(gate_up);
    at::Tensor d_up = d.narrow(1, width, width);
    at::mul_out(d_up, dy[0], at::silu(gate));
    d.narrow(1, 0, width).copy_(at::silu_backward(dy[0].mul(up), gate));
    return {d};
  }
};

struct RecomputeFunction : public Function<RecomputeFunction> {
  using Block = std::function<at::Tensor(const at::Tensor&)>;

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Block& block) {
    context->saved_data["block"] =
        c10::IValue::make_capsule(c10::make_intrusive<HeldBlock>(block));
    Store(context, "x", x);
    at::NoGradGuard no_grad;
    return block(x);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    auto held = context->saved_data["block"].toCapsule();
    at::AutoGradMode enabled(true);
    at::Tensor x = Stored(context, "x").detach().requires_grad_(true);
    at::Tensor y = static_cast<HeldBlock*>(held.get())->block(x);
    y.backward(dy[0]);
    return {x.grad(), at::Tensor()};
  }

  struct HeldBlock : torch::CustomClassHolder {
    explicit HeldBlock(Block b) : block(std::move(b)) {}
    Block block;
  };
};

}  // namespace

at::Tensor Embedding(const at::Tensor& token_T, const Weight& table_VD) {
  if (!at::GradMode::is_enabled() || !table_VD.grad.defined()) {
    return table_VD.value.index_select(0, token_T);
  }
  at::Tensor anchor = at::zeros({1}, table_VD.value.options()).requires_grad_(true);
  return EmbeddingFunction::apply(anchor, token_T, table_VD);
}

at::Tensor RmsNorm(const at::Tensor& x, const Weight& weight_D, double eps) {
  if (Records(x)) return RmsNormFunction::apply(x, weight_D, eps);
  at::Tensor x_fp32 = x.to(at::kFloat);
  return x_fp32.mul(InverseRms(x_fp32, eps)).to(x.scalar_type()).mul_(weight_D.value);
}

at::Tensor Projection(const at::Tensor& x_TD, const Weight& weight_ED, const Weight& bias_E) {
  if (Records(x_TD)) return ProjectionFunction::apply(x_TD, weight_ED, bias_E);
  return at::linear(x_TD, weight_ED.value, bias_E.value);
}

at::Tensor Rotary(const at::Tensor& x_THC, const at::Tensor& cos_TC2, const at::Tensor& sin_TC2) {
  if (Records(x_THC)) return RotaryFunction::apply(x_THC, cos_TC2, sin_TC2);
  return Rotate(x_THC, cos_TC2, sin_TC2, 1);
}

at::Tensor GatedSilu(const at::Tensor& gate_up) {
  if (Records(gate_up)) return GatedSiluFunction::apply(gate_up);
  const int64_t width = gate_up.size(1) / 2;
  return at::silu(gate_up.narrow(1, 0, width)).mul_(gate_up.narrow(1, width, width));
}

at::Tensor Recompute(const std::function<at::Tensor(const at::Tensor&)>& block,
                     const at::Tensor& x) {
  return Records(x) ? RecomputeFunction::apply(x, block) : block(x);
}

}  // namespace rein::nn
