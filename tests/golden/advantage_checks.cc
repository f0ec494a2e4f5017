// Advantages, rewards of tokens.

#include <ATen/ATen.h>

#include "reward/rules/length.h"
#include "tests/golden/golden_families.h"
#include "trainer/advantages/gae.h"
#include "trainer/advantages/group_relative.h"
#include "trainer/advantages/leave_one_out.h"
#include "trainer/advantages/reward_to_go.h"
#include "trainer/advantages/token_reward.h"
#include "trainer/advantages/whiten.h"

namespace rein::trainer {
namespace {

std::vector<double> Numbers(const at::Tensor& x) {
  at::Tensor flat = x.contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

std::vector<uint32_t> Labels(const GoldenCase& c) {
  std::vector<uint32_t> labels;
  for (double label : Numbers(c.Input("group_B"))) labels.push_back(static_cast<uint32_t>(label));
  return labels;
}

void CheckGroupRelative(const GoldenCase& c) {
  auto advantage =
      GroupRelative(Numbers(c.Input("score_B")), Labels(c),
                    {c.Param<bool>("normalize_by_std", true), c.Param<double>("epsilon")});
  ExpectNear(at::tensor(advantage, at::kDouble), c.Expected("advantage_B"), c, "advantage");
}

void CheckLeaveOneOut(const GoldenCase& c) {
  auto advantage = LeaveOneOut(Numbers(c.Input("score_B")), Labels(c));
  ExpectNear(at::tensor(advantage, at::kDouble), c.Expected("advantage_B"), c, "advantage");
}

void CheckGae(const GoldenCase& c) {
  const Mask mask(c.Input("loss_mask_BT"));
  Gae gae = TokenGae(mask.Rows(c.Input("token_reward_BT")), mask.Rows(c.Input("value_BT")),
                     {c.Param<double>("gamma"), c.Param<double>("lambda")});
  ExpectNear(mask.Padded(gae.advantage), c.Expected("advantage_BT"), c, "advantage");
  if (!c.Expects("return_BT")) return;
  ExpectNear(mask.Padded(gae.returns), c.Expected("return_BT"), c, "return");
  ExpectNear(mask.Padded(Whiten(gae.advantage)), c.Expected("whitened_advantage_BT"), c, "whitened");
}

void CheckReinforcePp(const GoldenCase& c) {
  const Mask mask(c.Input("loss_mask_BT"));
  TokenRows returns = RewardToGo(mask.Rows(c.Input("token_reward_BT")), c.Param<double>("gamma"));
  ExpectNear(mask.Padded(returns), c.Expected("return_BT"), c, "return");
  ExpectNear(mask.Padded(Whiten(returns)), c.Expected("advantage_BT"), c, "advantage");
}

void CheckReinforcePpBaseline(const GoldenCase& c) {
  const Mask mask(c.Input("loss_mask_BT"));
  auto centred = GroupRelative(Numbers(c.Input("score_B")), Labels(c), {.normalize_by_std = false});
  at::Tensor tiled = at::tensor(centred, at::kDouble).unsqueeze(1).expand(mask.shape);
  ExpectNear(mask.Padded(Whiten(mask.Rows(tiled))), c.Expected("advantage_BT"), c, "advantage");
}

void CheckWhiten(const GoldenCase& c) {
  const Mask mask(c.Input("loss_mask_BT"));
  ExpectNear(mask.Padded(Whiten(mask.Rows(c.Input("x_BT")))), c.Expected("whitened_BT"), c, "whitened");
}

void CheckOverlong(const GoldenCase& c) {
  std::vector<double> penalty;
  for (double length : Numbers(c.Input("completion_length_N"))) {
    penalty.push_back(c.Param<double>("factor") *
                      reward::LengthPenalty(static_cast<uint32_t>(length),
                                            {.max_tokens = c.Param<uint32_t>("max_length"),
                                             .buffer_tokens = c.Param<uint32_t>("buffer")}));
  }
  ExpectNear(at::tensor(penalty, at::kDouble), c.Expected("penalty_N"), c, "penalty");
}

void CheckKlInReward(const GoldenCase& c) {
  const Mask mask(c.Input("loss_mask_BT"));
  TokenRows reward = mask.Rows(c.Input("token_reward_BT"));
  SubtractKl(mask.Rows(c.Input("policy_logprob_BT")), mask.Rows(c.Input("reference_logprob_BT")),
             c.Param<double>("beta"), reward);
  at::Tensor expected = mask.Padded(mask.Packed(c.Expected("shaped_reward_BT")));
  ExpectNear(mask.Padded(reward), expected, c, "reward");
}

void CheckAdaptive(const GoldenCase& c) {
  ExpectNear(NextKlCoefficient(c.Param<double>("beta"), c.Param<double>("current_kl"),
                               c.Param<double>("target"), c.Param<double>("num_rollouts"),
                               c.Param<double>("horizon")),
             c, "beta");
}

}  // namespace

const Checks& AdvantageChecks() {
  static const auto& checks =
      *new Checks{{"grpo_advantage", CheckGroupRelative},
                  {"rloo_advantage", CheckLeaveOneOut},
                  {"gae", CheckGae},
                  {"reinforce_pp_advantage", CheckReinforcePp},
                  {"reinforce_pp_baseline_advantage", CheckReinforcePpBaseline},
                  {"masked_whiten", CheckWhiten},
                  {"overlong_penalty", CheckOverlong},
                  {"kl_shaped_reward", CheckKlInReward},
                  {"adaptive_kl_coefficient", CheckAdaptive}};
  return checks;
}

}  // namespace rein::trainer
