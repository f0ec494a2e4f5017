#include "common/nn/functions.h"

#include <ATen/ATen.h>

#include <torch/csrc/autograd/autograd.h>

#include "common/kernels/gated_silu.h"
#include "common/kernels/norm.h"
#include "common/kernels/projection.h"
#include "common/nn/autograd.h"
#include "common/nn/launched.h"

namespace rein::nn {
namespace {

// to[index[n]] += rows[n], in order.
void AddRows(at::Tensor& to, const at::Tensor& index_N, const at::Tensor& rows_ND) {
  if (to.is_cpu()) {
    to.index_add_(0, index_N, rows_ND);
  } else {  // where index_add_ adds in any order
    to.index_put_({index_N}, rows_ND, /*accumulate=*/true);
  }
}

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
    if (grad.defined()) AddRows(grad, Stored(context, "token"), dy[0].to(at::kFloat));
    return {at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct RowsFunction : public Function<RowsFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD, const at::Tensor& index_N) {
    context->saved_data["rows"] = x_TD.size(0);
    Store(context, "index", index_N);
    return x_TD.index_select(0, index_N);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor dx = at::zeros({context->saved_data["rows"].toInt(), dy[0].size(1)}, dy[0].options());
    AddRows(dx, Stored(context, "index"), dy[0]);
    return {dx, at::Tensor()};
  }
};

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

// By kernel: {sum, norm}, or {norm} when nothing is added.
tensor_list FusedAddRmsNorm(const at::Tensor& x, const at::Tensor& delta, const Weight& weight,
                            double eps, float* inverse) {
  at::Tensor in = x.contiguous(), add = delta.defined() ? delta.contiguous() : delta;
  at::Tensor sum = add.defined() ? at::empty_like(in) : in, y = at::empty_like(in);
  kernels::AddNorm norm;
  norm.x = in.const_data_ptr();
  norm.weight = weight.value.const_data_ptr();
  norm.y = y.mutable_data_ptr();
  norm.columns = in.size(-1);
  norm.rows = in.numel() / norm.columns;
  norm.epsilon = static_cast<float>(eps);
  norm.inverse = inverse;
  if (add.defined()) {
    norm.delta = add.const_data_ptr();
    norm.sum = sum.mutable_data_ptr();
  }
  Launched(kernels::AddRmsNorm(norm, Stream()));
  if (!add.defined()) return {y};
  return {sum, y};
}

// Functions take no undefined tensors: without a delta, x stands in its place and `added` is false.
struct FusedAddRmsNormFunction : public Function<FusedAddRmsNormFunction> {
  static tensor_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& delta,
                             bool added, const Weight& weight, double eps) {
    at::Tensor inverse = at::empty({x.numel() / x.size(-1)}, x.options().dtype(at::kFloat));
    tensor_list out = FusedAddRmsNorm(x, added ? delta : at::Tensor(), weight, eps,
                                      inverse.mutable_data_ptr<float>());
    Store(context, "sum", added ? out[0].detach() : x);
    Store(context, "inverse", inverse);
    Store(context, "weight", weight.value);
    Store(context, "grad", weight.grad);
    return out;
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    const bool added = dy.size() == 2;
    at::Tensor sum = Stored(context, "sum").contiguous(), grad = Stored(context, "grad");
    at::Tensor dnorm = dy.back().contiguous(),
               dsum = added && dy[0].defined() ? dy[0].contiguous() : at::Tensor();
    at::Tensor inverse = Stored(context, "inverse"), dx = at::empty_like(sum);
    kernels::AddNormGradient g;
    g.columns = sum.size(-1);
    g.rows = sum.numel() / g.columns;
    at::Tensor scratch = at::empty({kernels::kNormGradientBlocks, g.columns}, inverse.options());
    g.sum = sum.const_data_ptr();
    g.weight = Stored(context, "weight").const_data_ptr();
    g.inverse = inverse.const_data_ptr<float>();
    g.dy = dnorm.const_data_ptr();
    if (dsum.defined()) g.dsum = dsum.const_data_ptr();
    g.dx = dx.mutable_data_ptr();
    if (grad.defined()) g.dweight = grad.mutable_data_ptr<float>();
    g.scratch = scratch.mutable_data_ptr<float>();
    Launched(kernels::AddRmsNormGradient(g, Stream()));
    return {dx, added ? dx : at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor Multiply(const at::Tensor& x_TD, const Weight& weight_ED, const Weight& bias_E) {
  const int64_t columns = weight_ED.size(0), inner = weight_ED.size(1);
  at::Tensor matrix_ED = weight_ED.Dense();
  if (!RunsKernels(x_TD) || !kernels::ProjectionTakes(columns, inner)) {
    return at::linear(x_TD, matrix_ED, bias_E.value);
  }
  at::Tensor x = x_TD.contiguous(), y = at::empty({x.size(0), columns}, x.options());
  Launched(kernels::RunProjection(ProjectionOf(x, matrix_ED, bias_E.value, y), Stream()));
  return y;
}

// Adds the low-rank update to its columns of y_TE; returns x down^T, [T, R].
at::Tensor AddUpdate(const at::Tensor& x_TD, const LowRankUpdate& update, const at::Tensor& y_TE) {
  at::Tensor low_TR = Multiply(x_TD, update.down, {});
  y_TE.narrow(1, update.first_row, update.rows).add_(Multiply(low_TR, update.up, {}), update.scale);
  return low_TR;
}

struct ProjectionFunction : public Function<ProjectionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD,
                            const Weight& weight_ED, const Weight& bias_E) {
    Store(context, "x", x_TD);
    StoreWeight(context, weight_ED);
    Store(context, "bias_grad", bias_E.grad);
    at::Tensor y_TE = Multiply(x_TD, weight_ED, bias_E);
    std::vector<at::Tensor> lows;  // of each update, what AddUpdate() returned
    for (const LowRankUpdate& u : weight_ED.updates) lows.push_back(AddUpdate(x_TD, u, y_TE));
    if (!lows.empty()) context->saved_data["lows"] = lows;
    return y_TE;
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor dy_TE = dy[0].contiguous(), x_TD = Stored(context, "x");
    const Weight weight_ED = StoredWeight(context);
    AccumulateOuter(weight_ED.grad, dy_TE, x_TD);
    at::Tensor bias_grad = Stored(context, "bias_grad");
    if (bias_grad.defined()) bias_grad.add_(dy_TE.sum(0, /*keepdim=*/false, at::kFloat));
    at::Tensor dx_TD = at::mm(dy_TE, weight_ED.Dense());
    std::vector<at::Tensor> lows;
    if (!weight_ED.updates.empty()) lows = context->saved_data["lows"].toTensorVector();
    for (size_t i = 0; i < lows.size(); ++i) {
      const LowRankUpdate& u = weight_ED.updates[i];
      at::Tensor part = dy_TE.narrow(1, u.first_row, u.rows).contiguous();
      AccumulateOuter(u.up.grad, part, lows[i] * u.scale);
      at::Tensor dlow_TR = at::mm(part, u.up.value).mul_(u.scale);
      AccumulateOuter(u.down.grad, dlow_TR, x_TD);
      dx_TD.addmm_(dlow_TR, u.down.value);
    }
    return {dx_TD, at::Tensor(), at::Tensor()};
  }
};

bool SiluRunsKernels(const at::Tensor& gate_up) {
  return RunsKernels(gate_up) && gate_up.size(1) % 16 == 0;
}

at::Tensor GatedSiluForward(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(1) / 2;
  if (!SiluRunsKernels(gate_up)) {
    return at::silu(gate_up.narrow(1, 0, width)).mul_(gate_up.narrow(1, width, width));
  }
  at::Tensor in = gate_up.contiguous(), y = at::empty({in.size(0), width}, in.options());
  Launched(kernels::GatedSilu(in.const_data_ptr(), y.mutable_data_ptr(), in.size(0), width, Stream()));
  return y;
}

struct GatedSiluFunction : public Function<GatedSiluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    Store(context, "gate_up", gate_up);
    return GatedSiluForward(gate_up);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor gate_up = Stored(context, "gate_up").contiguous();
    const int64_t width = gate_up.size(1) / 2;
    at::Tensor d = at::empty_like(gate_up);
    if (SiluRunsKernels(gate_up)) {
      at::Tensor dy_TF = dy[0].contiguous();
      Launched(kernels::GatedSiluGradient(gate_up.const_data_ptr(), dy_TF.const_data_ptr(),
                                          d.mutable_data_ptr(), gate_up.size(0), width,
                                          Stream()));
      return {d};
    }
    at::Tensor gate = gate_up.narrow(1, 0, width), up = gate_up.narrow(1, width, width);
    at::Tensor d_up = d.narrow(1, width, width);
    at::mul_out(d_up, dy[0], at::silu(gate));
    d.narrow(1, 0, width).copy_(at::silu_backward(dy[0].mul(up), gate));
    return {d};
  }
};

struct RecomputeFunction : public Function<RecomputeFunction> {
  static tensor_list forward(AutogradContext* context, const at::Tensor& x,
                             const at::Tensor& delta, bool added, const Block& block) {
    context->saved_data["block"] =
        c10::IValue::make_capsule(c10::make_intrusive<HeldBlock>(block));
    Store(context, "x", x);
    if (added) Store(context, "delta", delta);
    at::NoGradGuard no_grad;
    Residual out = block({x, added ? delta : at::Tensor()});
    return {out.x_TD, out.delta_TD};
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    auto held = context->saved_data["block"].toCapsule();
    at::AutoGradMode enabled(true);
    auto leaf = [&](const char* name) {
      at::Tensor stored = Stored(context, name);
      return stored.defined() ? stored.detach().requires_grad_(true) : stored;
    };
    at::Tensor x = leaf("x"), delta = leaf("delta");
    Residual out = static_cast<HeldBlock*>(held.get())->block({x, delta});
    tensor_list roots, gradients;
    for (auto [root, gradient] : {std::pair{out.x_TD, dy[0]}, std::pair{out.delta_TD, dy[1]}}) {
      if (!gradient.defined()) continue;
      roots.push_back(root);
      gradients.push_back(gradient);
    }
    torch::autograd::backward(roots, gradients);
    return {x.grad(), delta.defined() ? delta.grad() : at::Tensor(), at::Tensor(), at::Tensor()};
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

at::Tensor Rows(const at::Tensor& x_TD, const at::Tensor& index_N) {
  return Records(x_TD) ? RowsFunction::apply(x_TD, index_N) : x_TD.index_select(0, index_N);
}

SumAndNorm AddRmsNorm(const at::Tensor& x_TD, const at::Tensor& delta_TD, const Weight& weight_D,
                      double eps) {
  const bool added = delta_TD.defined();
  if (RunsKernels(x_TD) && kernels::NormTakes(x_TD.size(-1))) {
    tensor_list out = Records(x_TD)
                          ? FusedAddRmsNormFunction::apply(x_TD, added ? delta_TD : x_TD, added,
                                                           weight_D, eps)
                          : FusedAddRmsNorm(x_TD, delta_TD, weight_D, eps, nullptr);
    return {added ? out[0] : x_TD, out.back()};
  }
  at::Tensor sum = added ? x_TD + delta_TD : x_TD;
  return {sum, RmsNorm(sum, weight_D, eps)};
}

at::Tensor RmsNorm(const at::Tensor& x, const Weight& weight_D, double eps) {
  if (Records(x)) return RmsNormFunction::apply(x, weight_D, eps);
  at::Tensor x_fp32 = x.to(at::kFloat);
  return x_fp32.mul(InverseRms(x_fp32, eps)).to(x.scalar_type()).mul_(weight_D.value);
}

at::Tensor Projection(const at::Tensor& x_TD, const Weight& weight_ED, const Weight& bias_E) {
  if (Records(x_TD)) return ProjectionFunction::apply(x_TD, weight_ED, bias_E);
  at::Tensor y_TE = Multiply(x_TD, weight_ED, bias_E);
  for (const LowRankUpdate& u : weight_ED.updates) AddUpdate(x_TD, u, y_TE);
  return y_TE;
}

at::Tensor GatedSilu(const at::Tensor& gate_up) {
  return Records(gate_up) ? GatedSiluFunction::apply(gate_up) : GatedSiluForward(gate_up);
}

Residual Recompute(const Block& block, const Residual& in) {
  if (!Records(in.x_TD)) return block(in);
  const bool added = in.delta_TD.defined();
  tensor_list out = RecomputeFunction::apply(in.x_TD, added ? in.delta_TD : in.x_TD, added, block);
  return {out[0], out[1]};
}

}  // namespace rein::nn
