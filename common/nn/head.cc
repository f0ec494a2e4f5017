#include "common/nn/head.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "common/kernels/logits.h"
#include "common/kernels/projection.h"
#include "common/nn/autograd.h"
#include "common/nn/functions.h"
#include "common/nn/launched.h"
#include "common/nn/linear.h"

namespace rein::nn {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 25;  // 128 MiB of fp32 logits

int64_t ChunkRows(int64_t vocab_size) { return std::max<int64_t>(16, kChunkElements / vocab_size); }

at::Tensor ScaledLogits(const at::Tensor& hidden_ND, const at::Tensor& head_VD,
                        double temperature, double softcap, bool records) {
  at::Tensor logits = Linear(hidden_ND, head_VD, {}, records).to(at::kFloat);
  if (softcap > 0) logits.div_(softcap).tanh_().mul_(softcap);
  return temperature == 1 ? logits : logits.div_(temperature);
}

// 1 / length of each row, [V, 1] fp32.
at::Tensor InverseLengths(const at::Tensor& head_VD) {
  return head_VD.to(at::kFloat).square().sum(1, /*keepdim=*/true).rsqrt();
}

at::Tensor NormalisedRows(const at::Tensor& head_VD, const at::Tensor& inverse_V1) {
  return head_VD.to(at::kFloat).mul(inverse_V1).to(head_VD.scalar_type());
}

// The gradient of a head whose rows are divided by their length, from that of the divided rows: what points along a row
// does not change it.
void AddNormalisedGradient(const at::Tensor& grad_VD, const at::Tensor& matrix_VD, const at::Tensor& inverse_V1,
                           at::Tensor weight_grad_VD) {
  at::Tensor rows_VD = matrix_VD.to(at::kFloat);
  at::Tensor along = grad_VD.mul(rows_VD).sum(1, /*keepdim=*/true);
  weight_grad_VD.add_((grad_VD - rows_VD.mul(along)).mul_(inverse_V1));
}

struct HeadFunction : public Function<HeadFunction> {
  static tensor_list forward(AutogradContext* context, const at::Tensor& hidden_ND,
                             const Weight& weight_VD, const at::Tensor& target_N,
                             double temperature, const HeadRule& rule) {
    at::Tensor head_VD = weight_VD.value, inverse_V1;
    if (rule.normalised) {
      inverse_V1 = InverseLengths(head_VD);
      head_VD = NormalisedRows(head_VD, inverse_V1);
    }
    const int64_t rows = hidden_ND.size(0), chunk = ChunkRows(head_VD.size(0));
    at::TensorOptions fp32 = hidden_ND.options().dtype(at::kFloat);
    at::Tensor logprob_N = at::empty({rows}, fp32), entropy_N = at::empty({rows}, fp32),
               lse_N = at::empty({rows}, fp32);
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      at::Tensor logits = ScaledLogits(hidden_ND.narrow(0, begin, n), head_VD, temperature, rule.softcap, /*records=*/context != nullptr);
      at::Tensor lse = logits.logsumexp(1);
      at::Tensor chosen = logits.gather(1, target_N.narrow(0, begin, n).unsqueeze(1)).squeeze(1);
      logprob_N.narrow(0, begin, n).copy_(chosen - lse);
      at::Tensor probability = logits.sub(lse.unsqueeze(1)).exp_();
      entropy_N.narrow(0, begin, n).copy_(lse - probability.mul_(logits).sum(1));
      lse_N.narrow(0, begin, n).copy_(lse);
    }
    if (context != nullptr) {
      context->saved_data["temperature"] = temperature;
      context->saved_data["softcap"] = rule.softcap;
      Store(context, "hidden", hidden_ND);
      Store(context, "head", head_VD);
      Store(context, "inverse", inverse_V1);
      Store(context, "grad", weight_VD.grad);
      Store(context, "target", target_N);
      Store(context, "lse", lse_N);
      Store(context, "entropy", entropy_N.detach());  // an output itself would be a cycle
    }
    return {logprob_N, entropy_N};
  }

  // d logprob / d z = onehot - p;  d entropy / d z = -p (log p + entropy), with z = logits / temperature.
  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    const double temperature = context->saved_data["temperature"].toDouble();
    const double softcap = context->saved_data["softcap"].toDouble();
    at::Tensor hidden_ND = Stored(context, "hidden"), head_VD = Stored(context, "head"),
               weight_grad_VD = Stored(context, "grad"), inverse_V1 = Stored(context, "inverse"),
               target_N = Stored(context, "target"), lse_N = Stored(context, "lse"), entropy_N = Stored(context, "entropy");
    at::Tensor dhidden_ND = at::empty_like(hidden_ND), grad_VD = weight_grad_VD;
    if (inverse_V1.defined() && grad_VD.defined()) grad_VD = at::zeros_like(grad_VD);
    const int64_t rows = hidden_ND.size(0), chunk = ChunkRows(head_VD.size(0));
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      at::Tensor hidden = hidden_ND.narrow(0, begin, n);
      at::Tensor logprob = ScaledLogits(hidden, head_VD, temperature, softcap, /*records=*/true), slope;
      if (softcap > 0) slope = 1 - (logprob * (temperature / softcap)).square();  // of the cap
      logprob.sub_(lse_N.narrow(0, begin, n).unsqueeze(1));
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
      if (slope.defined()) dz.mul_(slope);
      at::Tensor dlogits = dz.div_(temperature).to(hidden.scalar_type());
      at::Tensor target = dhidden_ND.narrow(0, begin, n);
      at::mm_out(target, dlogits, head_VD);
      AccumulateOuter(grad_VD, dlogits, hidden);
    }
    if (inverse_V1.defined() && grad_VD.defined()) AddNormalisedGradient(grad_VD, head_VD, inverse_V1, weight_grad_VD);
    return {dhidden_ND, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// What the kernel makes of rows of logits, chunk by chunk.
struct LogitStats {
  LogitStats(int64_t rows, const at::TensorOptions& options)
      : logprob_N(at::empty({rows}, options.dtype(at::kFloat))),
        entropy_N(at::empty_like(logprob_N)), lse_N(at::empty_like(logprob_N)) {}

  // Rows [begin, begin + n) of the outputs from n rows of logits.
  void Compute(const at::Tensor& logits_NV, const at::Tensor& target_N, double temperature,
               int64_t begin) {
    kernels::LogitStats run;
    run.rows = logits_NV.size(0);
    run.stride = logits_NV.stride(0);
    run.vocabulary = logits_NV.size(1);
    at::Tensor scratch = at::empty({kernels::LogitScratchBytes(run.rows, run.vocabulary)},
                                   logits_NV.options().dtype(at::kByte));
    run.logits = logits_NV.const_data_ptr();
    run.target = target_N.const_data_ptr<int64_t>() + begin;
    run.temperature = static_cast<float>(temperature);
    run.logprob = logprob_N.mutable_data_ptr<float>() + begin;
    run.entropy = entropy_N.mutable_data_ptr<float>() + begin;
    run.lse = lse_N.mutable_data_ptr<float>() + begin;
    run.scratch = scratch.mutable_data_ptr();
    Launched(kernels::ComputeLogitStats(run, Stream()));
  }

  at::Tensor logprob_N, entropy_N, lse_N;
};

// The matrix that the logits are a product with. Kernels multiply by eight rows at once: there an odd vocabulary gets rows
// of zeros behind its own.
at::Tensor HeadMatrix(const at::Tensor& hidden_ND, const Weight& head_VD, const HeadRule& rule) {
  at::Tensor matrix = rule.normalised ? NormalisedRows(head_VD.value, InverseLengths(head_VD.value)) : head_VD.value;
  const int64_t beyond = (8 - matrix.size(0) % 8) % 8;
  return RunsKernels(hidden_ND) && beyond > 0 ? at::constant_pad_nd(matrix, {0, 0, 0, beyond}) : matrix;
}

// Logits as they are sampled from: the generator's and, in bf16 on a GPU, the trainer's too. A column for each row of the
// matrix; those of rows of zeros are zeros.
at::Tensor RuledLogits(const at::Tensor& hidden_ND, const at::Tensor& matrix_VD, const HeadRule& rule) {
  at::Tensor logits = Projection(hidden_ND, {matrix_VD, {}}, {});
  if (rule.softcap > 0 && RunsKernels(logits)) {
    Launched(kernels::CapLogits(logits.mutable_data_ptr(), logits.numel(), static_cast<float>(rule.softcap), Stream()));
  } else if (rule.softcap > 0) {
    logits.div_(rule.softcap).tanh_().mul_(rule.softcap);
  } else if (rule.multiplier != 1) {
    logits.mul_(rule.multiplier);
  }
  return logits;
}

// bf16 on a GPU, by the kernels. Logits stay in bf16 and are reduced in slices of fixed order.
struct FusedHeadFunction : public Function<FusedHeadFunction> {
  static constexpr int64_t kChunkBytes = int64_t{1} << 30;

  static tensor_list forward(AutogradContext* context, const at::Tensor& hidden, const Weight& head,
                             const at::Tensor& target, double temperature, const HeadRule& rule) {
    const at::Tensor hidden_ND = hidden.contiguous(), target_N = target.contiguous(), matrix_VD = HeadMatrix(hidden, head, rule);
    const int64_t rows = hidden_ND.size(0), vocabulary = head.value.size(0);
    const bool keep = context != nullptr && rows * vocabulary * 2 <= kKeptLogitBytes;
    const int64_t chunk =
        keep ? std::max<int64_t>(rows, 1) : std::max<int64_t>(16, kChunkBytes / (2 * vocabulary));
    LogitStats stats(rows, hidden_ND.options());
    at::Tensor logits;
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      logits = RuledLogits(hidden_ND.narrow(0, begin, n), matrix_VD, rule);
      stats.Compute(logits.narrow(1, 0, vocabulary), target_N, temperature, begin);
    }
    if (context != nullptr) {
      context->saved_data["temperature"] = temperature;
      context->saved_data["chunk"] = chunk;
      context->saved_data["vocabulary"] = vocabulary;
      context->saved_data["multiplier"] = rule.multiplier;
      context->saved_data["softcap"] = rule.softcap;
      if (rule.normalised) Store(context, "inverse", InverseLengths(head.value));
      if (keep) Store(context, "logits", logits);
      Store(context, "hidden", hidden_ND);
      Store(context, "head", matrix_VD);
      Store(context, "grad", head.grad);
      Store(context, "target", target_N);
      Store(context, "lse", stats.lse_N);
      Store(context, "entropy", stats.entropy_N.detach());  // an output itself would be a cycle
    }
    return {stats.logprob_N, stats.entropy_N};
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor hidden_ND = Stored(context, "hidden"), head_VD = Stored(context, "head"),
               target_N = Stored(context, "target"), lse_N = Stored(context, "lse"),
               entropy_N = Stored(context, "entropy"), logits = Stored(context, "logits"),
               inverse_V1 = Stored(context, "inverse"), weight_grad_VD = Stored(context, "grad"), grad_VD = weight_grad_VD;
    const HeadRule rule{context->saved_data["multiplier"].toDouble(), context->saved_data["softcap"].toDouble()};
    if (inverse_V1.defined() && grad_VD.defined()) grad_VD = at::zeros_like(grad_VD);
    context->saved_data.erase("logits");  // it is overwritten: a second backward recomputes
    auto rows_from = [](const at::Tensor& x, int64_t begin) {
      return x.defined() ? x.const_data_ptr<float>() + begin : nullptr;
    };
    at::Tensor dlogprob = dy[0].defined() ? dy[0].contiguous() : dy[0];
    at::Tensor dentropy = dy[1].defined() ? dy[1].contiguous() : dy[1];
    at::Tensor dhidden_ND = at::empty_like(hidden_ND);
    const int64_t rows = hidden_ND.size(0), chunk = context->saved_data["chunk"].toInt(),
                  vocabulary = context->saved_data["vocabulary"].toInt();
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      at::Tensor hidden = hidden_ND.narrow(0, begin, n);
      if (!logits.defined() || begin > 0) logits = RuledLogits(hidden.detach(), head_VD, rule);
      kernels::LogitGradient run;
      run.logits = logits.mutable_data_ptr();
      run.stride = logits.stride(0);
      run.vocabulary = vocabulary;
      run.target = target_N.const_data_ptr<int64_t>() + begin;
      run.temperature = static_cast<float>(context->saved_data["temperature"].toDouble());
      run.lse = rows_from(lse_N, begin);
      run.entropy = rows_from(entropy_N, begin);
      run.dlogprob = rows_from(dlogprob, begin);
      run.dentropy = rows_from(dentropy, begin);
      run.rows = n;
      run.softcap = static_cast<float>(rule.softcap);
      Launched(kernels::ComputeLogitGradient(run, Stream()));
      if (rule.multiplier != 1) logits.mul_(rule.multiplier);
      at::Tensor to = dhidden_ND.narrow(0, begin, n);
      at::mm_out(to, logits, head_VD);
      AccumulateOuter(grad_VD, logits.narrow(1, 0, vocabulary), hidden);
    }
    if (inverse_V1.defined() && grad_VD.defined()) AddNormalisedGradient(grad_VD, head_VD.narrow(0, 0, vocabulary), inverse_V1, weight_grad_VD);
    return {dhidden_ND, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

TokenLogprobs HeadLogprobs(const at::Tensor& hidden_ND, const Weight& head_VD,
                           const at::Tensor& target_N, double temperature, const HeadRule& rule) {
  TORCH_CHECK(rule.softcap == 0 || rule.multiplier == 1, "a head has a softcap or a multiplier");
  const bool fused = RunsKernels(hidden_ND) && kernels::ProjectionTakes(/*columns=*/8, head_VD.value.size(1));
  tensor_list out;
  if (fused) {
    out = Records(hidden_ND)
              ? FusedHeadFunction::apply(hidden_ND, head_VD, target_N, temperature, rule)
              : FusedHeadFunction::forward(nullptr, hidden_ND, head_VD, target_N, temperature, rule);
  } else {
    temperature /= rule.multiplier;
    out = Records(hidden_ND)
              ? HeadFunction::apply(hidden_ND, head_VD, target_N, temperature, rule)
              : HeadFunction::forward(nullptr, hidden_ND, head_VD, target_N, temperature, rule);
  }
  return {out[0], out[1]};
}

TokenLogprobs TokenLogprobsOfLogits(const at::Tensor& logits_NV, const at::Tensor& target_N,
                                    double temperature) {
  LogitStats stats(logits_NV.size(0), logits_NV.options());
  stats.Compute(logits_NV.contiguous(), target_N, temperature, 0);
  return {stats.logprob_N, stats.entropy_N};
}

at::Tensor HeadLogits(const at::Tensor& hidden_ND, const Weight& head_VD, const HeadRule& rule) {
  at::NoGradGuard no_grad;
  return RuledLogits(hidden_ND, HeadMatrix(hidden_ND, head_VD, rule), rule).narrow(1, 0, head_VD.value.size(0));
}

}  // namespace rein::nn
