// Corrections for rollouts of another policy, and their figures.

#include <ATen/ATen.h>

#include <map>

#include "tests/golden/golden_families.h"
#include "trainer/losses/off_policy.h"

namespace rein::trainer {
namespace {

at::Tensor Drift(const GoldenCase& c, const Mask& mask) {
  return mask.Packed(c.Input("old_logprob_BT") - c.Input("behaviour_logprob_BT"));
}

void CheckWeight(const GoldenCase& c) {
  const Mask mask(c.Input("loss_mask_BT"));
  ImportanceCorrection correction;
  correction.level = c.Param<std::string>("level") == "token" ? WeightLevel::kToken : WeightLevel::kSequence;
  correction.mask = c.Param<std::string>("mode") == "mask";
  if (c.HasParam("lower")) correction.low = c.Param<double>("lower");
  correction.high = c.Param<double>("upper");
  ExpectNear(mask.Padded(ImportanceWeight(Drift(c, mask), mask.segments, correction)),
             c.Expected("weight_BT"), c, "weight");
}

void CheckRejection(const GoldenCase& c) {
  using S = RejectionStatistic;
  static const std::map<std::string, S> kNames = {
      {"token_k1", S::kTokenK1},           {"token_k2", S::kTokenK2},
      {"token_k3", S::kTokenK3},           {"seq_sum_k1", S::kSequenceSumK1},
      {"seq_sum_k2", S::kSequenceSumK2},   {"seq_sum_k3", S::kSequenceSumK3},
      {"seq_mean_k1", S::kSequenceMeanK1}, {"seq_mean_k2", S::kSequenceMeanK2},
      {"seq_mean_k3", S::kSequenceMeanK3}, {"seq_max_k1", S::kSequenceMaxK1},
      {"seq_max_k2", S::kSequenceMaxK2},   {"seq_max_k3", S::kSequenceMaxK3}};
  const Mask mask(c.Input("loss_mask_BT"));
  Rejection rejection{.statistic = kNames.at(c.Param<std::string>("statistic")),
                      .high = c.Param<double>("upper")};
  if (c.HasParam("lower")) rejection.low = c.Param<double>("lower");
  ExpectNear(mask.Padded(RejectionMask(Drift(c, mask), mask.segments, rejection)),
             c.Expected("loss_mask_BT"), c, "mask");
}

void CheckMetrics(const GoldenCase& c) {
  const Mask mask(c.Input("loss_mask_BT"));
  const OffPolicyFigures f = MeasureOffPolicy(Drift(c, mask), c.Param<double>("ess_upper"));
  auto mean = [](const at::Tensor& x) { return x.mean().item<double>(); };
  ExpectNear(EffectiveSampleShare(mean(f.weight_T), mean(f.weight_square_T)), c, "ess_ratio");
  ExpectNear(mean(f.k1_T), c, "kl_k1");
  ExpectNear(mean(f.k3_T), c, "kl_k3");
  ExpectNear(mean(f.mult_T), c, "token_mult_prob_error");
  ExpectNear(mean(f.abs_T), c, "logprob_abs_diff");
  ExpectNear(mean(f.square_T) - 1, c, "chi2_token");
}

}  // namespace

const Checks& OffPolicyChecks() {
  static const auto& checks = *new Checks{{"importance_weight", CheckWeight},
                                          {"rejection_mask", CheckRejection},
                                          {"offpolicy_metrics", CheckMetrics}};
  return checks;
}

}  // namespace rein::trainer
