#include "common/nn/router_record.h"

#include <ATen/ATen.h>

#include <utility>

#include "common/nn/autograd.h"

namespace rein::nn {
namespace {

using Level = RouterRecord::Level;

struct HeldRecord : torch::CustomClassHolder {
  explicit HeldRecord(std::shared_ptr<RouterRecord> r) : record(std::move(r)) {}
  std::shared_ptr<RouterRecord> record;
};

// d/dlogits of sum of slope * softmax(logits), where p is the softmax.
at::Tensor ThroughSoftmax(const at::Tensor& p_TE, const at::Tensor& slope) {
  return p_TE * (slope - (p_TE * slope).sum(-1, /*keepdim=*/true));
}

// The choices are counts, so the loss is linear in the probabilities, with the same slopes for every row.
struct BalanceFunction : public Function<BalanceFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits_TE,
                            const std::shared_ptr<RouterRecord>& record) {
    context->saved_data["record"] = c10::IValue::make_capsule(c10::make_intrusive<HeldRecord>(record));
    Store(context, "probability", at::softmax(logits_TE, -1));
    return logits_TE.view_as(logits_TE);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    auto held = context->saved_data["record"].toCapsule();
    const RouterRecord& record = *static_cast<HeldRecord*>(held.get())->record;
    at::Tensor p = Stored(context, "probability");
    const auto rows = static_cast<double>(record.rows);
    const double factor = record.balance * record.share * static_cast<double>(p.size(1)) / rows;
    at::Tensor even_E = record.level == Level::kGlobal ? record.even_E : record.choices_LE.sum(0) / rows;
    at::Tensor g = ThroughSoftmax(p, even_E * factor);
    return {dy[0].defined() ? dy[0] + g : g, at::Tensor()};
  }
};

// The logits, with a gradient that is known already.
struct GradientFunction : public Function<GradientFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits_TE, const at::Tensor& gradient_TE) {
    Store(context, "gradient", gradient_TE);
    return logits_TE.view_as(logits_TE);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor g = Stored(context, "gradient");
    return {dy[0].defined() ? dy[0] + g : g, at::Tensor()};
  }
};

struct LossAndGradient {
  at::Tensor loss, gradient_TE;
};

// The auxiliary loss of each sequence, without its weight.
LossAndGradient SequenceBalance(const at::Tensor& logits_TE, const at::Tensor& expert_TK, bool sigmoid,
                                const at::Tensor& sequence_T) {
  const int64_t sequences = sequence_T[-1].item<int64_t>() + 1, experts = logits_TE.size(1);
  at::Tensor score = sigmoid ? at::sigmoid(logits_TE) : at::softmax(logits_TE, -1);
  at::Tensor sum = score.sum(-1, /*keepdim=*/true), p = sigmoid ? score / sum : score;
  auto by_sequence = [&](const at::Tensor& x) {
    return at::zeros({sequences, experts}, x.options()).index_add_(0, sequence_T, x);
  };
  at::Tensor tokens_S1 = at::zeros({sequences}, p.options()).index_add_(0, sequence_T, at::ones_like(sum.squeeze(1))).unsqueeze(1);
  at::Tensor count_SE = by_sequence(at::zeros_like(p).scatter_(1, expert_TK, 1.0));
  at::Tensor even_SE = count_SE * (static_cast<double>(experts) / static_cast<double>(expert_TK.size(1))) / tokens_S1;
  at::Tensor loss = (even_SE * by_sequence(p) / tokens_S1).sum() / static_cast<double>(sequences);
  at::Tensor slope = (even_SE / (tokens_S1 * static_cast<double>(sequences))).index_select(0, sequence_T);
  if (!sigmoid) return {loss, ThroughSoftmax(p, slope)};
  return {loss, (slope - (p * slope).sum(-1, /*keepdim=*/true)) / sum * score * (1 - score)};
}

}  // namespace

double RouterRecord::BalanceLoss() const {
  if (rows == 0) return 0;
  if (level == Level::kSequence) return balance * sequence_loss.item<double>();
  const auto n = static_cast<double>(rows);
  at::Tensor even = level == Level::kGlobal ? even_E : choices_LE.sum(0) / n;
  return balance * static_cast<double>(probability_E.size(0)) * (even * probability_E).sum().item<double>() / n;
}

double RouterRecord::ZLoss() const {
  if (rows == 0) return 0;
  return z_loss * log_partition.item<double>() * static_cast<double>(layers) / static_cast<double>(rows);
}

at::Tensor Recorded(const at::Tensor& logits_TE, const at::Tensor& expert_TK, bool sigmoid, int64_t layer, int64_t layers,
                    const std::shared_ptr<RouterRecord>& record) {
  if (record == nullptr) return logits_TE;
  const bool by_sequence = record->balance > 0 && record->level == Level::kSequence;
  at::Tensor gradient;  // of what is known here; the rest waits for all layers
  {
    at::NoGradGuard no_grad;
    const int64_t experts = logits_TE.size(1);
    at::TensorOptions fp32 = logits_TE.options().dtype(at::kFloat).requires_grad(false);
    if (!record->choices_LE.defined()) {
      record->choices_LE = at::zeros({layers, experts}, fp32);
      record->probability_E = at::zeros({experts}, fp32);
      for (at::Tensor* sum : {&record->entropy, &record->sequence_loss, &record->log_partition}) *sum = at::zeros({}, fp32);
      if (!record->dropped.defined()) record->dropped = at::zeros({}, fp32);
    }
    LossAndGradient sequence;
    if (by_sequence) {
      sequence = SequenceBalance(logits_TE, expert_TK, sigmoid, record->sequence_T);
      gradient = sequence.gradient_TE * (record->balance * record->share);
    }
    at::Tensor lse_T1 = at::logsumexp(logits_TE, -1, /*keepdim=*/true), log_p = logits_TE - lse_T1, p = log_p.exp();
    if (record->z_loss > 0) {
      at::Tensor g = p * lse_T1 * (2 * record->z_loss * record->share / static_cast<double>(p.size(0)));
      gradient = gradient.defined() ? gradient + g : g;
    }
    if (!record->closed) {
      at::Tensor chosen = at::zeros_like(p).scatter_(1, expert_TK, 1.0);
      record->choices_LE[layer].add_(chosen.sum(0));
      record->probability_E.add_(p.sum(0));
      record->entropy.sub_((p * log_p).sum());
      record->log_partition.add_(lse_T1.square().sum());
      if (by_sequence) record->sequence_loss.add_(sequence.loss);
      record->rows += logits_TE.size(0);
      ++record->layers;
    }
  }
  if (!Records(logits_TE)) return logits_TE;
  at::Tensor out = gradient.defined() ? GradientFunction::apply(logits_TE, gradient) : logits_TE;
  return record->balance == 0 || by_sequence ? out : BalanceFunction::apply(out, record);
}

}  // namespace rein::nn
