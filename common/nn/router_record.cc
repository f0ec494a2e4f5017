#include "common/nn/router_record.h"

#include <ATen/ATen.h>

#include <utility>

#include "common/nn/autograd.h"

namespace rein::nn {
namespace {

struct HeldRecord : torch::CustomClassHolder {
  explicit HeldRecord(std::shared_ptr<RouterRecord> r) : record(std::move(r)) {}
  std::shared_ptr<RouterRecord> record;
};

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
    const double factor = record.balance * record.share * static_cast<double>(p.size(1)) / (rows * rows);
    at::Tensor slope_E = record.choices_LE.sum(0) * factor;
    at::Tensor g = p * (slope_E - (p * slope_E).sum(-1, /*keepdim=*/true));
    return {dy[0].defined() ? dy[0] + g : g, at::Tensor()};
  }
};

}  // namespace

double RouterRecord::BalanceLoss() const {
  if (rows == 0) return 0;
  const auto n = static_cast<double>(rows);
  const double product = (choices_LE.sum(0) * probability_E).sum().item<double>();
  return balance * static_cast<double>(probability_E.size(0)) * product / (n * n);
}

at::Tensor Recorded(const at::Tensor& logits_TE, const at::Tensor& expert_TK, int64_t layer, int64_t layers,
                    const std::shared_ptr<RouterRecord>& record) {
  if (record == nullptr) return logits_TE;
  if (!record->closed) {
    at::NoGradGuard no_grad;
    const int64_t experts = logits_TE.size(1);
    at::TensorOptions fp32 = logits_TE.options().dtype(at::kFloat).requires_grad(false);
    if (!record->choices_LE.defined()) {
      record->choices_LE = at::zeros({layers, experts}, fp32);
      record->probability_E = at::zeros({experts}, fp32);
      record->entropy = at::zeros({}, fp32);
    }
    at::Tensor log_p = at::log_softmax(logits_TE, -1), p = log_p.exp();
    at::Tensor chosen = at::zeros_like(p).scatter_(1, expert_TK, 1.0);
    record->choices_LE[layer].add_(chosen.sum(0));
    record->probability_E.add_(p.sum(0));
    record->entropy.sub_((p * log_p).sum());
    record->rows += logits_TE.size(0);
  }
  if (record->balance == 0 || !Records(logits_TE)) return logits_TE;
  return BalanceFunction::apply(logits_TE, record);
}

}  // namespace rein::nn
