#include "common/nn/head.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "common/nn/autograd.h"

namespace rein::nn {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 25;  // 128 MiB of fp32 logits

int64_t ChunkRows(int64_t vocab_size) { return std::max<int64_t>(16, kChunkElements / vocab_size); }

at::Tensor ScaledLogits(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                        double temperature) {
  at::Tensor logits = at::linear(hidden_ND, head_VD).to(at::kFloat);
  return temperature == 1 ? logits : logits.div_(temperature);
}

struct HeadFunction : public Function<HeadFunction> {
  static tensor_list forward(AutogradContext* context, const at::Tensor& hidden_ND,
                             const Weight& head_VD, const at::Tensor& target_N,
                             double temperature) {
    const int64_t rows = hidden_ND.size(0), chunk = ChunkRows(head_VD.value.size(0));
    at::TensorOptions fp32 = hidden_ND.options().dtype(at::kFloat);
    at::Tensor logprob_N = at::empty({rows}, fp32), entropy_N = at::empty({rows}, fp32),
               lse_N = at::empty({rows}, fp32);
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      at::Tensor logits = ScaledLogits(hidden_ND.narrow(0, begin, n), head_VD.value, temperature);
      at::Tensor lse = logits.logsumexp(1);
      at::Tensor chosen = logits.gather(1, target_N.narrow(0, begin, n).unsqueeze(1)).squeeze(1);
      logprob_N.narrow(0, begin, n).copy_(chosen - lse);
      at::Tensor probability = logits.sub(lse.unsqueeze(1)).exp_();
      entropy_N.narrow(0, begin, n).copy_(lse - probability.mul_(logits).sum(1));
      lse_N.narrow(0, begin, n).copy_(lse);
    }
    if (context != nullptr) {
      context->saved_data["temperature"] = temperature;
      Store(context, "hidden", hidden_ND);
      Store(context, "head", head_VD.value);
      Store(context, "grad", head_VD.grad);
      Store(context, "target", target_N);
      Store(context, "lse", lse_N);
      Store(context, "entropy", entropy_N.detach());  // an output itself would be a cycle
    }
    return {logprob_N, entropy_N};
  }

  // d logprob / d z = onehot - p;  d entropy / d z = -p (log p + entropy), with z = logits / temperature.
  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    const double temperature = context->saved_data["temperature"].toDouble();
    at::Tensor hidden_ND = Stored(context, "hidden"), head_VD = Stored(context, "head"),
               grad_VD = Stored(context, "grad"), target_N = Stored(context, "target"),
               lse_N = Stored(context, "lse"), entropy_N = Stored(context, "entropy");
    at::Tensor dhidden_ND = at::empty_like(hidden_ND);
    const int64_t rows = hidden_ND.size(0), chunk = ChunkRows(head_VD.size(0));
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      at::Tensor hidden = hidden_ND.narrow(0, begin, n);
      at::Tensor logprob = ScaledLogits(hidden, head_VD, temperature)
                               .sub_(lse_N.narrow(0, begin, n).unsqueeze(1));
      at::Tensor p = logprob.exp();
      at::Tensor dz;
      if (dy[1].defined()) {
        at::Tensor entropy = entropy_N.narrow(0, begin, n).unsqueeze(1);
        at::Tensor d_entropy = dy[1].narrow(0, begin, n).unsqueeze(1);
        dz = logprob.add_(entropy).mul_(p).mul_(d_entropy).neg_();
      } else {
        dz = at::zeros_like(p);
      }
      if (dy[0].defined()) {
        at::Tensor d_logprob = dy[0].narrow(0, begin, n).unsqueeze(1);
        dz.sub_(p.mul_(d_logprob));
        dz.scatter_add_(1, target_N.narrow(0, begin, n).unsqueeze(1), d_logprob);
      }
      at::Tensor dlogits = dz.div_(temperature).to(hidden.scalar_type());
      at::Tensor target = dhidden_ND.narrow(0, begin, n);
      at::mm_out(target, dlogits, head_VD);
      AccumulateOuter(grad_VD, dlogits, hidden);
    }
    return {dhidden_ND, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

TokenLogprobs HeadLogprobs(const at::Tensor& hidden_ND, const Weight& head_VD,
                           const at::Tensor& target_N, double temperature) {
  tensor_list out = Records(hidden_ND)
                        ? HeadFunction::apply(hidden_ND, head_VD, target_N, temperature)
                        : HeadFunction::forward(nullptr, hidden_ND, head_VD, target_N, temperature);
  return {out[0], out[1]};
}

at::Tensor HeadLogits(const at::Tensor& hidden_ND, const Weight& head_VD) {
  return at::linear(hidden_ND, head_VD.value).to(at::kFloat);
}

}  // namespace rein::nn
