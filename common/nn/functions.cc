#include "common/nn/functions.h"

#include <ATen/ATen.h>

#include <torch/csrc/autograd/autograd.h>

#include "common/kernels/expert_rows.h"
#include "common/kernels/projection.h"
#include "common/nn/autograd.h"
#include "common/nn/launched.h"
#include "common/nn/linear.h"

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

// x_TD row_1D^T, in fp32 until the last rounding: cuBLAS would sum by the number of rows.
at::Tensor RowDots(const at::Tensor& x_TD, const at::Tensor& row_1D) {
  at::Tensor x = x_TD.contiguous(), first_T = at::zeros({x.size(0)}, x.options().dtype(at::kLong));
  at::Tensor dot_T = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  Launched(kernels::DotRows(row_1D.const_data_ptr(), first_T.const_data_ptr<int64_t>(), x.const_data_ptr(),
                            dot_T.mutable_data_ptr<float>(), x.size(0), x.size(1), Stream()));
  return dot_T.to(x.scalar_type()).unsqueeze(1);
}

at::Tensor Multiply(const at::Tensor& x_TD, const Weight& weight_ED, const Weight& bias_E, bool records) {
  const int64_t columns = weight_ED.size(0), inner = weight_ED.size(1);
  at::Tensor matrix_ED = weight_ED.Dense();
  if (RunsKernels(x_TD) && columns == 1 && inner % 8 == 0 && !bias_E.defined()) return RowDots(x_TD, matrix_ED);
  if (!RunsKernels(x_TD) || !kernels::ProjectionTakes(columns, inner)) {
    return Linear(x_TD, matrix_ED, bias_E.value, records);
  }
  at::Tensor x = x_TD.contiguous(), y = at::empty({x.size(0), columns}, x.options());
  Launched(kernels::RunProjection(ProjectionOf(x, matrix_ED, bias_E.value, y), Stream()));
  return y;
}

// Adds the low-rank update to its columns of y_TE; returns x down^T, [T, R].
at::Tensor AddUpdate(const at::Tensor& x_TD, const LowRankUpdate& update, const at::Tensor& y_TE, bool records) {
  at::Tensor low_TR = Multiply(x_TD, update.down, {}, records);
  y_TE.narrow(1, update.first_row, update.rows).add_(Multiply(low_TR, update.up, {}, records), update.scale);
  return low_TR;
}

struct ProjectionFunction : public Function<ProjectionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD,
                            const Weight& weight_ED, const Weight& bias_E) {
    Store(context, "x", x_TD);
    StoreWeight(context, weight_ED);
    Store(context, "bias_grad", bias_E.grad);
    at::Tensor y_TE = Multiply(x_TD, weight_ED, bias_E, /*records=*/true);
    std::vector<at::Tensor> lows;  // of each update, what AddUpdate() returned
    for (const LowRankUpdate& u : weight_ED.updates) lows.push_back(AddUpdate(x_TD, u, y_TE, /*records=*/true));
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

// Whether this thread is in a forward pass that will be repeated with recording: it must have the same bits.
thread_local bool repeated = false;

struct Repeated {
  Repeated() { repeated = true; }
  ~Repeated() { repeated = outer; }
  const bool outer = repeated;
};

struct RecomputeFunction : public Function<RecomputeFunction> {
  static tensor_list forward(AutogradContext* context, const at::Tensor& x,
                             const at::Tensor& delta, bool added, const Block& block) {
    context->saved_data["block"] =
        c10::IValue::make_capsule(c10::make_intrusive<HeldBlock>(block));
    Store(context, "x", x);
    if (added) Store(context, "delta", delta);
    at::NoGradGuard no_grad;
    Repeated here;
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

at::Tensor Projection(const at::Tensor& x_TD, const Weight& weight_ED, const Weight& bias_E) {
  if (Records(x_TD)) return ProjectionFunction::apply(x_TD, weight_ED, bias_E);
  at::Tensor y_TE = Multiply(x_TD, weight_ED, bias_E, repeated);
  for (const LowRankUpdate& u : weight_ED.updates) AddUpdate(x_TD, u, y_TE, repeated);
  return y_TE;
}

Residual Recompute(const Block& block, const Residual& in) {
  if (!Records(in.x_TD)) return block(in);
  const bool added = in.delta_TD.defined();
  tensor_list out = RecomputeFunction::apply(in.x_TD, added ? in.delta_TD : in.x_TD, added, block);
  return {out[0], out[1]};
}

}  // namespace rein::nn
