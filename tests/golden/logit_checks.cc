// Log-probs and entropies of logits, by the head that training uses (fp32).

#include <ATen/ATen.h>

#include "common/nn/head.h"
#include "tests/golden/golden_families.h"

namespace rein::trainer {
namespace {

// The head in fp32: an identity matrix turns hidden states into the given logits.
struct HeadOverLogits {
  explicit HeadOverLogits(const GoldenCase& c, double temperature = 1)
      : logits(c.Input("logits_BTV")), leaf(logits.clone().requires_grad_(true)) {
    const int64_t vocab = logits.size(2);
    at::Tensor label = c.Has("label_BT") ? c.Input("label_BT").to(at::kLong).reshape({-1})
                                         : at::zeros({logits.size(0) * logits.size(1)}, at::kLong);
    nn::Weight identity{at::eye(vocab, at::kFloat), {}};
    out = nn::HeadLogprobs(leaf.to(at::kFloat).reshape({-1, vocab}), identity, label, temperature);
  }

  at::Tensor logits, leaf;
  nn::TokenLogprobs out;
};

GoldenCase InFloat(GoldenCase c) {
  c.body["tolerance"] = {{"rtol", 1e-4}, {"atol", 1e-6}};
  return c;
}

void CheckLogprob(const GoldenCase& double_case) {
  const GoldenCase c = InFloat(double_case);
  HeadOverLogits head(c, c.Param<double>("temperature", 1));
  ExpectNear(head.out.logprob_N, c.Expected("logprob_BT"), c, "logprob");
}

void CheckEntropy(const GoldenCase& double_case) {
  const GoldenCase c = InFloat(double_case);
  HeadOverLogits head(c);
  Mask mask(c.Input("loss_mask_BT"));
  at::Tensor entropy = mask.Packed(head.out.entropy_N);
  ExpectNear(mask.Padded(entropy.detach()), c.Expected("entropy_BT"), c, "entropy");
  CheckLoss(c, mask, entropy, head.leaf, "grad_logits_BTV", AggregationOf(c));
}

void CheckSft(const GoldenCase& double_case) {
  const GoldenCase c = InFloat(double_case);
  HeadOverLogits head(c);
  Mask mask(c.Input("loss_mask_BT"));
  CheckLoss(c, mask, -mask.Packed(head.out.logprob_N), head.leaf, "grad_logits_BTV", AggregationOf(c));
}

}  // namespace

const Checks& LogitChecks() {
  static const auto& checks = *new Checks{{"logprob_from_logits", CheckLogprob},
                                          {"entropy", CheckEntropy},
                                          {"sft_loss", CheckSft}};
  return checks;
}

}  // namespace rein::trainer
