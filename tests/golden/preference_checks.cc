// What critics, reward models and preference jobs learn.

#include <ATen/ATen.h>

#include <optional>

#include "tests/golden/golden_families.h"
#include "trainer/losses/bradley_terry.h"
#include "trainer/losses/dpo.h"
#include "trainer/losses/value_loss.h"

namespace rein::trainer {
namespace {

void CheckValue(const GoldenCase& c) {
  const Mask mask(c.Input("loss_mask_BT"));
  at::Tensor value_BT = c.Input("value_BT").requires_grad_(true);
  std::optional<double> clip;
  if (c.HasParam("clip")) clip = c.Param<double>("clip");
  ValueLoss out = ClippedValueLoss(mask.Packed(value_BT), mask.Packed(c.Input("old_value_BT")),
                                   mask.Packed(c.Input("return_BT")), clip);
  ExpectNear(out.clipped_T.mean(), c.Expected("clip_fraction"), c, "clip fraction");
  // Ours has the half; the file's token loss has not.
  ExpectNear(mask.Padded(2 * out.loss_T.detach()), c.Expected("token_loss_BT"), c, "token loss");
  at::Tensor weight = mask.Weights(AggregationOf(c), mask.Counts(), 0, mask.shape[0]);
  at::Tensor loss = (2 * c.Param<double>("coefficient") * out.loss_T * weight).sum();
  ExpectNear(loss, c.Expected("loss"), c, "loss");
  loss.backward();
  ExpectNear(value_BT.grad(), c.Expected("grad_value_BT"), c, "gradient");
}

PairLogprobs PairsOf(const GoldenCase& c) {
  return {c.Input("policy_chosen_P").requires_grad_(true),
          c.Input("policy_rejected_P").requires_grad_(true),
          c.Input("reference_chosen_P"),
          c.Input("reference_rejected_P"),
          c.InputOf("chosen_tokens_P"),
          c.InputOf("rejected_tokens_P")};
}

void CheckPairs(const GoldenCase& c, const DpoSettings& settings) {
  const PairLogprobs pairs = PairsOf(c);
  PairLoss out = Dpo(pairs, settings);
  ExpectNear(out.loss_P, c.Expected("pair_loss_P"), c, "pair loss");
  at::Tensor loss = out.loss_P.mean();
  ExpectNear(loss, c.Expected("loss"), c, "loss");
  loss.backward();
  ExpectNear(pairs.chosen_P.grad(), c.Expected("grad_policy_chosen_P"), c, "gradient of chosen");
  ExpectNear(pairs.rejected_P.grad(), c.Expected("grad_policy_rejected_P"), c, "gradient of rejected");
  if (!c.Expects("accuracy")) return;
  ExpectNear(out.chosen_reward_P, c.Expected("chosen_reward_P"), c, "reward of chosen");
  ExpectNear(out.rejected_reward_P, c.Expected("rejected_reward_P"), c, "reward of rejected");
  ExpectNear(out.chosen_reward_P.gt(out.rejected_reward_P).to(at::kDouble).mean(), c.Expected("accuracy"), c,
             "accuracy");
}

void CheckDpo(const GoldenCase& c) {
  CheckPairs(c, {DpoLoss::kSigmoid, c.Param<double>("beta"), c.Param<double>("label_smoothing")});
}

void CheckIpo(const GoldenCase& c) {
  CheckPairs(c, {c.Param<bool>("length_normalized") ? DpoLoss::kIpo : DpoLoss::kIpoSum,
                 c.Param<double>("beta"), 0});
}

void CheckBradleyTerry(const GoldenCase& c) {
  at::Tensor chosen = c.Input("reward_chosen_P").requires_grad_(true);
  at::Tensor rejected = c.Input("reward_rejected_P").requires_grad_(true);
  at::Tensor margin = c.Param<bool>("use_margin") ? c.Input("margin_P") : at::Tensor();
  BradleyTerryLoss out = BradleyTerry(chosen, rejected, margin);
  ExpectNear(out.loss_P, c.Expected("pair_loss_P"), c, "pair loss");
  at::Tensor loss = (out.loss_P + c.Param<double>("center_coefficient") * out.center_P).mean();
  ExpectNear(loss, c.Expected("loss"), c, "loss");
  loss.backward();
  ExpectNear(chosen.grad(), c.Expected("grad_reward_chosen_P"), c, "gradient of chosen");
  ExpectNear(rejected.grad(), c.Expected("grad_reward_rejected_P"), c, "gradient of rejected");
  ExpectNear(chosen.gt(rejected).to(at::kDouble).mean(), c.Expected("accuracy"), c, "accuracy");
}

}  // namespace

const Checks& PreferenceChecks() {
  static const auto& checks = *new Checks{{"value_loss", CheckValue},
                                          {"dpo", CheckDpo},
                                          {"ipo", CheckIpo},
                                          {"bradley_terry", CheckBradleyTerry}};
  return checks;
}

}  // namespace rein::trainer
