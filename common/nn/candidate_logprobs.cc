#include "common/nn/candidate_logprobs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "common/nn/autograd.h"
#include "common/nn/linear.h"

namespace rein::nn {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 25;  // 128 MiB of fp32 logits

// log softmax of rows [begin, begin + n): [n, V] fp32.
at::Tensor LogSoftmax(const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature,
                      double softcap, bool records) {
  at::Tensor logits = Linear(hidden_ND, head_VD, {}, records).to(at::kFloat);
  if (softcap > 0) logits.div_(softcap).tanh_().mul_(softcap);
  return at::log_softmax(logits.div_(temperature), 1);
}

struct CandidateFunction : public Function<CandidateFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden_ND,
                            const Weight& head_VD, const at::Tensor& candidate_NK,
                            double temperature, double softcap) {
    const int64_t rows = hidden_ND.size(0);
    const int64_t chunk = std::max<int64_t>(16, kChunkElements / head_VD.value.size(0));
    at::Tensor out_NK = at::empty(candidate_NK.sizes(), hidden_ND.options().dtype(at::kFloat));
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      at::Tensor logprob = LogSoftmax(hidden_ND.narrow(0, begin, n), head_VD.value, temperature, softcap, /*records=*/context != nullptr);
      out_NK.narrow(0, begin, n).copy_(logprob.gather(1, candidate_NK.narrow(0, begin, n)));
    }
    if (context != nullptr) {
      context->saved_data["temperature"] = temperature;
      context->saved_data["softcap"] = softcap;
      context->saved_data["chunk"] = chunk;
      Store(context, "hidden", hidden_ND);
      Store(context, "head", head_VD.value);
      Store(context, "grad", head_VD.grad);
      Store(context, "candidate", candidate_NK);
    }
    return out_NK;
  }

  // d logprob_k / d z = onehot(k) - p, with z = capped logits / temperature.
  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    const double temperature = context->saved_data["temperature"].toDouble();
    const double softcap = context->saved_data["softcap"].toDouble();
    const int64_t chunk = context->saved_data["chunk"].toInt();
    at::Tensor hidden_ND = Stored(context, "hidden"), head_VD = Stored(context, "head"),
               grad_VD = Stored(context, "grad"), candidate_NK = Stored(context, "candidate");
    at::Tensor dhidden_ND = at::empty_like(hidden_ND);
    const int64_t rows = hidden_ND.size(0);
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      at::Tensor hidden = hidden_ND.narrow(0, begin, n), g = dy[0].narrow(0, begin, n);
      at::Tensor logprob = LogSoftmax(hidden, head_VD, temperature, softcap, /*records=*/true);
      at::Tensor dz = logprob.exp().mul_(g.sum(1, /*keepdim=*/true)).neg_();
      dz.scatter_add_(1, candidate_NK.narrow(0, begin, n), g);
      if (softcap > 0) {
        at::Tensor logits = at::linear(hidden, head_VD).to(at::kFloat).div_(softcap).tanh_();
        dz.mul_(1 - logits.square());
      }
      at::Tensor dlogits = dz.div_(temperature).to(hidden.scalar_type());
      at::Tensor to = dhidden_ND.narrow(0, begin, n);
      at::mm_out(to, dlogits, head_VD);
      AccumulateOuter(grad_VD, dlogits, hidden);
    }
    return {dhidden_ND, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor CandidateLogprobs(const at::Tensor& hidden_ND, const Weight& head_VD,
                             const at::Tensor& candidate_NK, double temperature,
                             const HeadRule& rule) {
  TORCH_CHECK(!rule.normalised, "candidates of a normalised head");
  temperature /= rule.multiplier;  // a head has a softcap or a multiplier
  return Records(hidden_ND) ? CandidateFunction::apply(hidden_ND, head_VD, candidate_NK, temperature, rule.softcap)
                            : CandidateFunction::forward(nullptr, hidden_ND, head_VD, candidate_NK, temperature, rule.softcap);
}

}  // namespace rein::nn
