#include "common/nn/grouped_experts.h"

#include <ATen/ATen.h>

#include "common/kernels/expert_rows.h"
#include "common/kernels/projection.h"
#include "common/nn/autograd.h"
#include "common/nn/expert_order.h"
#include "common/nn/launched.h"
#include "common/nn/leaf.h"

namespace rein::nn {
namespace {

at::Tensor Spread(const at::Tensor& x_TD, const at::Tensor& token_N, const at::Tensor& scale_N) {
  at::Tensor x = x_TD.contiguous(), out_ND = at::empty({token_N.size(0), x.size(1)}, x.options());
  Launched(kernels::SpreadRows(x.const_data_ptr(), token_N.const_data_ptr<int64_t>(),
                               scale_N.defined() ? scale_N.const_data_ptr<float>() : nullptr, out_ND.mutable_data_ptr(),
                               out_ND.size(0), x.size(1), Stream()));
  return out_ND;
}

at::Tensor Combine(const at::Tensor& y_ND, const at::Tensor& place_TK, const at::Tensor& weight_TK) {
  at::Tensor y = y_ND.contiguous(), out_TD = at::empty({place_TK.size(0), y.size(1)}, y.options());
  Launched(kernels::CombineRows(y.const_data_ptr(), place_TK.const_data_ptr<int64_t>(),
                                weight_TK.defined() ? weight_TK.const_data_ptr<float>() : nullptr,
                                out_TD.mutable_data_ptr(), place_TK.size(0), place_TK.size(1), y.size(1), Stream()));
  return out_TD;
}

struct SpreadFunction : public Function<SpreadFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD, const at::Tensor& token_N,
                            const at::Tensor& place_TK) {
    Store(context, "place", place_TK);
    return Spread(x_TD, token_N, {});
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    return {Combine(dy[0], Stored(context, "place"), {}), at::Tensor(), at::Tensor()};
  }
};

struct CombineFunction : public Function<CombineFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& y_ND, const at::Tensor& weight_TK,
                            const at::Tensor& token_N, const at::Tensor& place_TK) {
    at::Tensor weight = weight_TK.contiguous();
    Store(context, "y", y_ND);
    Store(context, "weight", weight);
    Store(context, "token", token_N);
    Store(context, "place", place_TK);
    return Combine(y_ND, place_TK, weight);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor dout_TD = dy[0].contiguous(), y_ND = Stored(context, "y").contiguous(), weight_TK = Stored(context, "weight");
    at::Tensor token_N = Stored(context, "token"), place_N = Stored(context, "place").flatten();
    at::Tensor scale_N = at::empty({place_N.size(0)}, weight_TK.options());
    scale_N.index_copy_(0, place_N, weight_TK.flatten());
    at::Tensor dot_N = at::empty_like(scale_N);
    Launched(kernels::DotRows(dout_TD.const_data_ptr(), token_N.const_data_ptr<int64_t>(), y_ND.const_data_ptr(),
                              dot_N.mutable_data_ptr<float>(), dot_N.size(0), y_ND.size(1), Stream()));
    return {Spread(dout_TD, token_N, scale_N), dot_N.index_select(0, place_N).view_as(weight_TK), at::Tensor(), at::Tensor()};
  }
};

at::Tensor BiasOfRows(const Weight& bias_EO, const at::Tensor& end_E, int64_t rows) {
  at::Tensor place_N = at::arange(rows, end_E.options());
  return bias_EO.value.index_select(0, at::searchsorted(end_E, place_N, /*out_int32=*/false, /*right=*/true));
}

// x_ND through the matrix of each row's expert; the gradients of an expert without rows stay as they are.
struct GroupedProjectionFunction : public Function<GroupedProjectionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_ND, const Weight& weight_EOD,
                            const Weight& bias_EO, const at::Tensor& end_E) {
    Store(context, "x", x_ND);
    StoreWeight(context, weight_EOD);
    Store(context, "bias_grad", bias_EO.grad);
    Store(context, "end", end_E);
    return Multiply(x_ND, weight_EOD, bias_EO, end_E);
  }

  static at::Tensor Multiply(const at::Tensor& x_ND, const Weight& weight_EOD, const Weight& bias_EO,
                             const at::Tensor& end_E) {
    at::Tensor y_NO = at::_grouped_mm(x_ND, weight_EOD.Dense().transpose(1, 2), end_E);
    return bias_EO.defined() ? y_NO.add_(BiasOfRows(bias_EO, end_E, y_NO.size(0))) : y_NO;
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor dy_NO = dy[0].contiguous(), end_E = Stored(context, "end"), x_ND = Stored(context, "x");
    const Weight weight_EOD = StoredWeight(context);
    at::Tensor grad = weight_EOD.grad, bias_grad = Stored(context, "bias_grad");
    if (grad.defined()) grad.add_(at::_grouped_mm(dy_NO.t(), x_ND, end_E));
    if (bias_grad.defined()) {  // sums over each expert's rows, as a product with ones
      bias_grad.add_(at::_grouped_mm(dy_NO.t(), at::ones({dy_NO.size(0), 8}, dy_NO.options()), end_E).select(2, 0));
    }
    return {at::_grouped_mm(dy_NO, weight_EOD.Dense(), end_E), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor GroupedProjection(const at::Tensor& x_ND, const Weight& weight_EOD, const Weight& bias_EO,
                             const at::Tensor& end_E) {
  if (Records(x_ND)) return GroupedProjectionFunction::apply(x_ND, weight_EOD, bias_EO, end_E);
  return GroupedProjectionFunction::Multiply(x_ND, weight_EOD, bias_EO, end_E);
}

bool RouterRunsKernels(const at::Tensor& x_TD, const Weight& router_ED) {
  return RunsKernels(x_TD) && router_ED.value.scalar_type() == at::kBFloat16 &&
         kernels::ProjectionTakes(router_ED.value.size(0), router_ED.value.size(1));
}

at::Tensor ProjectToFloat(const at::Tensor& x_TD, const at::Tensor& weight_ED) {
  at::Tensor x = x_TD.contiguous(), y = at::empty({x.size(0), weight_ED.size(0)}, x.options().dtype(at::kFloat));
  Launched(kernels::RunPlainProjectionToFloat(ProjectionOf(x, weight_ED, {}, y), Stream()));
  return y;
}

struct RouterFunction : public Function<RouterFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD, const Weight& router_ED) {
    Store(context, "x", x_TD);
    Store(context, "weight", router_ED.value);
    Store(context, "grad", router_ED.grad);
    return ProjectToFloat(x_TD, router_ED.value);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor x_TD = Stored(context, "x"), grad = Stored(context, "grad");
    if (grad.defined()) grad.addmm_(dy[0].t(), x_TD.to(at::kFloat));
    return {at::mm(dy[0], Stored(context, "weight").to(at::kFloat)).to(x_TD.scalar_type()), at::Tensor()};
  }
};

}  // namespace

bool GroupedExpertsTake(const at::Tensor& x_TD, const ExpertWeights& weights) {
  auto multiple = [](const Weight& w) { return w.size(1) % 8 == 0 && w.size(2) % 8 == 0; };
  return RunsKernels(x_TD) && multiple(weights.gate_up) && multiple(weights.down) &&
         weights.gate_up.updates.empty() && weights.down.updates.empty();
}

at::Tensor GroupedExperts(const at::Tensor& x_TD, const Choice& choice, const ExpertWeights& weights, const Gate& gate) {
  const ExpertOrder order = SortByExpert(choice.expert_TK, weights.gate_up.size(0));
  at::Tensor token_N = order.choice_N.floor_divide(choice.expert_TK.size(1));
  at::Tensor x_ND = Records(x_TD) ? SpreadFunction::apply(x_TD, token_N, order.place_TK) : Spread(x_TD, token_N, {});
  at::Tensor inner_NI = Gated(GroupedProjection(x_ND, weights.gate_up, weights.gate_up_bias, order.end_E), gate);
  at::Tensor y_ND = GroupedProjection(inner_NI, weights.down, weights.down_bias, order.end_E);
  if (Records(y_ND) || Records(choice.weight_TK)) {
    return CombineFunction::apply(y_ND, choice.weight_TK, token_N, order.place_TK);
  }
  return Combine(y_ND, order.place_TK, choice.weight_TK.contiguous());
}

at::Tensor RouterLogits(const at::Tensor& x_TD, const ExpertWeights& weights) {
  const Weight &router = weights.router_ED, &bias = weights.router_bias_E;
  if (!RouterRunsKernels(x_TD, router)) {
    return at::linear(x_TD.to(at::kFloat), Leaf(router, at::kFloat), bias.defined() ? Leaf(bias, at::kFloat) : at::Tensor());
  }
  at::Tensor logits_TE = Records(x_TD) ? RouterFunction::apply(x_TD, router) : ProjectToFloat(x_TD, router.value);
  return bias.defined() ? logits_TE + Leaf(bias, at::kFloat) : logits_TE;
}

}  // namespace rein::nn
