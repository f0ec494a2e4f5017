#include "common/nn/query_key_value.h"

#include <ATen/ATen.h>

#include "common/kernels/qk_norm_rope.h"
#include "common/nn/autograd.h"
#include "common/nn/fp8.h"
#include "common/nn/launched.h"

namespace rein::nn {
namespace {

kernels::QkNormRope Describe(const at::Tensor& qkv, const HeadShape& shape, const at::Tensor& q_norm,
                             const at::Tensor& k_norm, double eps, const Rotary& rotary) {
  kernels::QkNormRope run;
  run.qkv = qkv.const_data_ptr();
  if (q_norm.defined()) run.q_weight = q_norm.const_data_ptr();
  if (k_norm.defined()) run.k_weight = k_norm.const_data_ptr();
  if (rotary.defined()) {
    run.cos = rotary.cos.const_data_ptr<float>();
    run.sin = rotary.sin.const_data_ptr<float>();
    run.rotary_dim = 2 * rotary.cos.size(1);
  }
  run.interleaved = rotary.interleaved;
  run.plus_one = shape.norm == NormKind::kRmsPlusOne && (q_norm.defined() || k_norm.defined());
  run.tokens = qkv.size(0);
  run.heads = shape.heads;
  run.kv_heads = shape.kv_heads;
  run.head_dim = shape.head_dim;
  run.epsilon = static_cast<float>(eps);
  return run;
}

struct QkNormRopeFunction : public Function<QkNormRopeFunction> {
  static tensor_list forward(AutogradContext* context, const at::Tensor& qkv_TE,
                             const HeadShape& shape, const Weight& q_norm, const Weight& k_norm,
                             double eps, const Rotary& rotary) {
    at::Tensor q = at::empty({qkv_TE.size(0), shape.heads, shape.head_dim}, qkv_TE.options());
    at::Tensor k = at::empty({qkv_TE.size(0), shape.kv_heads, shape.head_dim}, qkv_TE.options());
    kernels::QkNormRope run =
        Describe(qkv_TE, shape, q_norm.value, k_norm.value, eps, rotary);
    run.q = q.mutable_data_ptr();
    run.k = k.mutable_data_ptr();
    Launched(kernels::RunQkNormRope(run, Stream()));
    if (context != nullptr) {
      context->saved_data["shape"] =
          std::vector<int64_t>{shape.heads, shape.kv_heads, shape.head_dim, static_cast<int64_t>(shape.norm)};
      context->saved_data["interleaved"] = rotary.interleaved;
      context->saved_data["eps"] = eps;
      Store(context, "qkv", qkv_TE);
      Store(context, "q_norm", q_norm.value);
      Store(context, "k_norm", k_norm.value);
      Store(context, "q_grad", q_norm.grad);
      Store(context, "k_grad", k_norm.grad);
      Store(context, "cos", rotary.cos);
      Store(context, "sin", rotary.sin);
    }
    at::Tensor v = qkv_TE.view({qkv_TE.size(0), -1, shape.head_dim})
                       .narrow(1, shape.heads + shape.kv_heads, shape.kv_heads);
    return {q, k, v};
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    const std::vector<int64_t> s = context->saved_data["shape"].toIntVector();
    const HeadShape shape{s[0], s[1], s[2], static_cast<NormKind>(s[3])};
    at::Tensor qkv = Stored(context, "qkv"), q_norm = Stored(context, "q_norm"),
               k_norm = Stored(context, "k_norm");
    const Rotary rotary{Stored(context, "cos"), Stored(context, "sin"), context->saved_data["interleaved"].toBool()};
    at::Tensor dq = dy[0].contiguous(), dk = dy[1].contiguous(), dv = dy[2].contiguous();
    at::Tensor dqkv = at::empty_like(qkv), scratch;
    kernels::QkNormRopeGradient g;
    g.forward = Describe(qkv, shape, q_norm, k_norm, context->saved_data["eps"].toDouble(), rotary);
    g.dq = dq.const_data_ptr();
    g.dk = dk.const_data_ptr();
    g.dv = dv.const_data_ptr();
    g.dqkv = dqkv.mutable_data_ptr();
    at::Tensor q_grad = Stored(context, "q_grad"), k_grad = Stored(context, "k_grad");
    if (q_grad.defined() || k_grad.defined()) {
      scratch = at::empty({kernels::kQkGradientBlocks, 2, shape.head_dim},
                          qkv.options().dtype(at::kFloat));
      g.scratch = scratch.mutable_data_ptr<float>();
    }
    if (q_grad.defined()) g.dq_weight = q_grad.mutable_data_ptr<float>();
    if (k_grad.defined()) g.dk_weight = k_grad.mutable_data_ptr<float>();
    Launched(kernels::RunQkNormRopeGradient(g, Stream()));
    tensor_list out(6);
    out[0] = dqkv;
    return out;
  }
};

// New keys and values go straight into the pages.
QueryKeyValue IntoPages(const at::Tensor& qkv_TE, const HeadShape& shape, const Weight& q_norm,
                        const Weight& k_norm, double eps, const Rotary& rotary,
                        const SequenceView& view, int layer) {
  const PageMap& map = *view.pages;
  KvPages& pages = (*map.layers)[layer];
  at::Tensor q = at::empty({qkv_TE.size(0), shape.heads, shape.head_dim}, qkv_TE.options());
  kernels::QkNormRope run =
      Describe(qkv_TE, shape, q_norm.value, k_norm.value, eps, rotary);
  run.q = q.mutable_data_ptr();
  run.k = pages.key.mutable_data_ptr();
  run.v = pages.value.mutable_data_ptr();
  run.slot = map.slot_T.const_data_ptr<int64_t>();
  run.fp8 = pages.key.scalar_type() == at::kFloat8_e4m3fn;
  Launched(kernels::RunQkNormRope(run, Stream()));
  return {q, {}, {}};
}

// Norms over each head, or none.
bool KernelTakes(const HeadShape& shape, const Rotary& rotary) {
  return kernels::QkNormRopeTakes(shape.head_dim) && shape.norm != NormKind::kLayer &&
         (!rotary.defined() || 2 * rotary.cos.size(1) <= shape.head_dim);
}

}  // namespace

QueryKeyValue SplitQueryKeyValue(const at::Tensor& qkv_TE, const HeadShape& shape,
                                 const Weight& q_norm, const Weight& k_norm, double eps,
                                 const Rotary& rotary, const SequenceView& view, int layer) {
  if (RunsKernels(qkv_TE) && shape.norm_over_all && q_norm.defined()) {  // first, then the rest as without norms
    const int64_t q_columns = shape.heads * shape.head_dim, k_columns = shape.kv_heads * shape.head_dim;
    at::Tensor normed_TE = at::cat({Norm(qkv_TE.narrow(1, 0, q_columns), shape.norm, {q_norm, {}}, eps),
                                    Norm(qkv_TE.narrow(1, q_columns, k_columns), shape.norm, {k_norm, {}}, eps),
                                    qkv_TE.narrow(1, q_columns + k_columns, k_columns)},
                                   1);
    const HeadShape unnormed{.heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .kv_fp8 = shape.kv_fp8};
    return SplitQueryKeyValue(normed_TE, unnormed, {}, {}, eps, rotary, view, layer);
  }
  auto rounded = [&](const at::Tensor& x) { return shape.kv_fp8 ? RoundToFp8(x) : x; };
  if (RunsKernels(qkv_TE) && KernelTakes(shape, rotary)) {
    // The kernel rounds where it writes, not for pages of bf16.
    if (view.pages != nullptr && shape.kv_fp8 == ((*view.pages->layers)[layer].key.scalar_type() == at::kFloat8_e4m3fn)) {
      return IntoPages(qkv_TE, shape, q_norm, k_norm, eps, rotary, view, layer);
    }
    tensor_list out = Records(qkv_TE)
                          ? QkNormRopeFunction::apply(qkv_TE, shape, q_norm, k_norm, eps, rotary)
                          : QkNormRopeFunction::forward(nullptr, qkv_TE, shape, q_norm, k_norm, eps,
                                                        rotary);
    return {out[0], rounded(out[1]), rounded(out[2])};
  }
  at::Tensor qkv = qkv_TE.view({qkv_TE.size(0), -1, shape.head_dim});
  at::Tensor q = qkv.narrow(1, 0, shape.heads), k = qkv.narrow(1, shape.heads, shape.kv_heads),
             v = qkv.narrow(1, shape.heads + shape.kv_heads, shape.kv_heads);
  auto normed = [&](const at::Tensor& x, const Weight& weight) {
    if (!weight.defined()) return x;
    if (!shape.norm_over_all) return Norm(x, shape.norm, {weight, {}}, eps);
    return Norm(x.flatten(1), shape.norm, {weight, {}}, eps).view(x.sizes());
  };
  return {Rotate(normed(q, q_norm), rotary), rounded(Rotate(normed(k, k_norm), rotary)), rounded(v)};
}

}  // namespace rein::nn
