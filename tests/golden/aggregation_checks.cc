// Token losses to one number, and estimators of the KL divergence.

#include <ATen/ATen.h>

#include <map>

#include "tests/golden/golden_families.h"
#include "trainer/losses/kl.h"

namespace rein::trainer {
namespace {

KlEstimator EstimatorOf(const std::string& name) {
  static const std::map<std::string, KlEstimator> kNames = {
      {"k1", KlEstimator::kK1},
      {"abs", KlEstimator::kAbs},
      {"k2", KlEstimator::kK2},
      {"k3", KlEstimator::kK3},
      {"k3_unclamped", KlEstimator::kK3},
      {"k3_output_clamped", KlEstimator::kK3},
      {"k1+", KlEstimator::kK1StraightThrough},
      {"k3+", KlEstimator::kK3StraightThrough}};
  return kNames.at(name);
}

void CheckKl(const GoldenCase& c) {
  const std::string name = c.Param<std::string>("estimator");
  at::Tensor policy = at::zeros_like(c.Input("reference_minus_policy_N")).requires_grad_(true);
  KlClamp clamp{name == "k3", name != "k3_unclamped"};
  at::Tensor kl = Kl(policy, c.Input("reference_minus_policy_N"), EstimatorOf(name), clamp);
  ExpectNear(kl, c.Expected("kl_N"), c, "kl");
  if (!c.Expects("grad_policy_logprob_N")) return;
  kl.sum().backward();
  ExpectNear(policy.grad(), c.Expected("grad_policy_logprob_N"), c, "gradient");
}

void CheckKlLoss(const GoldenCase& c) {
  Mask mask(c.Input("loss_mask_BT"));
  at::Tensor policy = c.Input("policy_logprob_BT").requires_grad_(true);
  at::Tensor kl = Kl(mask.Packed(policy), mask.Packed(c.Input("reference_logprob_BT")),
                     EstimatorOf(c.Param<std::string>("estimator")));
  CheckLoss(c, mask, kl, policy, "grad_policy_logprob_BT", AggregationOf(c));
}

void CheckAggregate(const GoldenCase& c) {
  Mask mask(c.Input("loss_mask_BT"));
  at::Tensor token_loss = c.Input("token_loss_BT").requires_grad_(true);
  CheckLoss(c, mask, mask.Packed(token_loss), token_loss, "grad_token_loss_BT", AggregationOf(c));
}

void CheckMicrobatches(const GoldenCase& c) {
  Mask mask(c.Input("loss_mask_BT"));
  at::Tensor token_loss = mask.Packed(c.Input("token_loss_BT"));
  GlobalCounts counts{c.Param<double>("num_tokens"), c.Param<double>("num_sequences"),
                      static_cast<double>(mask.shape[1])};
  const int64_t split = c.Param<int64_t>("split");
  auto part = [&](int64_t begin, int64_t end) {
    return (token_loss * mask.Weights(AggregationOf(c), counts, begin, end)).sum();
  };
  at::Tensor parts = at::stack({part(0, split), part(split, mask.shape[0])});
  ExpectNear(parts, c.Expected("loss_parts"), c, "parts");
  ExpectNear(parts.sum(), c.Expected("loss"), c, "loss");
}

}  // namespace

const Checks& AggregationChecks() {
  static const auto& checks = *new Checks{{"kl_estimator", CheckKl},
                                          {"kl_loss", CheckKlLoss},
                                          {"aggregate", CheckAggregate},
                                          {"aggregate_microbatches", CheckMicrobatches}};
  return checks;
}

}  // namespace rein::trainer
