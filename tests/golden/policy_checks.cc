// Policy-gradient objectives.

#include <ATen/ATen.h>

#include "tests/golden/golden_families.h"
#include "trainer/losses/cispo.h"
#include "trainer/losses/clipped_surrogate.h"
#include "trainer/losses/dppo.h"
#include "trainer/losses/geometric_surrogate.h"
#include "trainer/losses/off_policy.h"
#include "trainer/losses/ratio.h"
#include "trainer/losses/reinforce.h"
#include "trainer/losses/sapo.h"

namespace rein::trainer {
namespace {

ClipRange ClipOf(const GoldenCase& c) {
  ClipRange clip{c.Param<double>("clip_low"), c.Param<double>("clip_high"), {}, {}};
  if (c.HasParam("dual_clip")) clip.dual = c.Param<double>("dual_clip");
  if (c.HasParam("delta")) clip.cap = c.Param<double>("delta");
  return clip;
}

void CheckPolicyLoss(const GoldenCase& c, const PolicyInputs& in, const at::Tensor& loss_T) {
  CheckLoss(c, in.mask, loss_T, in.leaf_BT, "grad_policy_logprob_BT", AggregationOf(c));
}

// Of each row, from a tensor that is constant within it.
at::Tensor OfRows(const at::Tensor& x_T, const Segments& segments) { return MeanOf(x_T, segments); }

void CheckPpoClip(const GoldenCase& c) {
  const PolicyInputs in(c);
  SurrogateLoss out = ClippedSurrogate(TokenLogRatio(in.policy, in.old), in.advantage, ClipOf(c));
  if (c.Expects("clip_fraction")) {
    ExpectNear((out.clipped_low_T + out.clipped_high_T).mean(), c.Expected("clip_fraction"), c, "clip");
    ExpectNear((in.old - in.policy).mean(), c.Expected("approx_kl"), c, "approx_kl");
  }
  if (c.Expects("dual_clip_fraction")) {
    ExpectNear(out.dual_T.mean(), c.Expected("dual_clip_fraction"), c, "dual clip");
  }
  CheckPolicyLoss(c, in, out.loss_T);
}

void CheckWeightedPpoClip(const GoldenCase& c) {
  const PolicyInputs in(c);
  SurrogateLoss out = ClippedSurrogate(TokenLogRatio(in.policy, in.old), in.advantage, ClipOf(c));
  ImportanceCorrection correction{.mask = c.Param<std::string>("weight") == "mis_token",
                                  .high = c.Param<double>("weight_upper")};
  if (c.HasParam("weight_lower")) correction.low = c.Param<double>("weight_lower");
  CheckPolicyLoss(
      c, in, out.loss_T * ImportanceWeight(in.old - in.behaviour, in.mask.segments, correction));
}

void CheckGspo(const GoldenCase& c) {
  const PolicyInputs in(c);
  at::Tensor log_ratio_T = SequenceLogRatio(in.policy, in.old, in.mask.segments);
  SurrogateLoss out = ClippedSurrogate(log_ratio_T, in.advantage, ClipOf(c));
  ExpectNear(OfRows(log_ratio_T.detach(), in.mask.segments), c.Expected("sequence_log_ratio_B"), c, "log ratio");
  ExpectNear(OfRows(out.ratio_T, in.mask.segments), c.Expected("sequence_ratio_B"), c, "ratio");
  CheckPolicyLoss(c, in, out.loss_T);
}

void CheckGmpo(const GoldenCase& c) {
  const PolicyInputs in(c);
  SurrogateLoss out =
      GeometricSurrogate(in.policy, in.old, in.advantage,
                         {c.Param<double>("clip_low"), c.Param<double>("clip_high")}, in.mask.segments);
  ExpectNear(OfRows(out.ratio_T, in.mask.segments), c.Expected("sequence_ratio_B"), c, "ratio");
  CheckLoss(c, in.mask, out.loss_T, in.leaf_BT, "grad_policy_logprob_BT", Aggregation::kSequenceMean);
}

void CheckSapo(const GoldenCase& c) {
  const PolicyInputs in(c);
  SurrogateLoss out = SoftGated(TokenLogRatio(in.policy, in.old), in.advantage,
                                {c.Param<double>("tau_pos"), c.Param<double>("tau_neg")});
  CheckPolicyLoss(c, in, out.loss_T);
}

void CheckCispoRange(const GoldenCase& c, const WeightRange& range) {
  const PolicyInputs in(c);
  SurrogateLoss out = Cispo(in.policy, TokenLogRatio(in.policy, in.old), in.advantage, range);
  CheckPolicyLoss(c, in, out.loss_T);
}
void CheckCispo(const GoldenCase& c) {
  CheckCispoRange(c, {1 - c.Param<double>("clip_low"), 1 + c.Param<double>("clip_high")});
}
void CheckCispoCap(const GoldenCase& c) { CheckCispoRange(c, {0, c.Param<double>("cap")}); }

void CheckDppoBy(const GoldenCase& c, Divergence divergence) {
  const PolicyInputs in(c);
  const double epsilon = c.Param<double>("epsilon");
  SurrogateLoss out =
      DivergenceMasked(in.policy, in.old, in.advantage,
                       {divergence, epsilon, epsilon, c.Param<double>("ratio_cap")});
  ExpectNear(in.mask.Padded(1 - out.clipped_low_T - out.clipped_high_T), c.Expected("keep_BT"), c, "keep");
  CheckPolicyLoss(c, in, out.loss_T);
}
void CheckDppoTv(const GoldenCase& c) { CheckDppoBy(c, Divergence::kTotalVariation); }
void CheckDppoKl(const GoldenCase& c) { CheckDppoBy(c, Divergence::kKl); }

// TRL's loss types are compositions of ours: luspo is the sequence ratio summed over tokens.
void CheckTrl(const GoldenCase& c) {
  const PolicyInputs in(c);
  const bool sequence = c.Param<std::string>("level") == "sequence";
  at::Tensor log_ratio_T = sequence ? SequenceLogRatio(in.policy, in.old, in.mask.segments)
                                    : TokenLogRatio(in.policy, in.old);
  SurrogateLoss out = ClippedSurrogate(log_ratio_T, in.advantage, ClipOf(c));
  const std::string type = c.Param<std::string>("loss_type");
  const Aggregation aggregation = type == "grpo"      ? Aggregation::kSequenceMean
                                  : type == "dapo"    ? Aggregation::kTokenMean
                                  : type == "dr_grpo" ? Aggregation::kSequenceSumFixed
                                                      : Aggregation::kSequenceSum;
  CheckLoss(c, in.mask, out.loss_T, in.leaf_BT, "grad_policy_logprob_BT", aggregation);
}

void CheckReinforce(const GoldenCase& c) {
  const PolicyInputs in(c);
  CheckPolicyLoss(c, in, Reinforce(in.policy, TokenLogRatio(in.policy, in.old), in.advantage).loss_T);
}

}  // namespace

const Checks& PolicyChecks() {
  static const auto& checks = *new Checks{
      {"ppo_clip", CheckPpoClip}, {"ppo_clip_weighted", CheckWeightedPpoClip},
      {"gspo", CheckGspo},        {"gmpo", CheckGmpo},
      {"sapo", CheckSapo},        {"cispo", CheckCispo},
      {"cispo_cap", CheckCispoCap}, {"dppo_tv", CheckDppoTv},
      {"dppo_kl", CheckDppoKl},   {"trl_policy", CheckTrl},
      {"reinforce", CheckReinforce}};
  return checks;
}

}  // namespace rein::trainer
