#include "trainer/advantages/estimate.h"

#include <utility>

#include "trainer/advantages/gae.h"
#include "trainer/advantages/gpg.h"
#include "trainer/advantages/group_relative.h"
#include "trainer/advantages/leave_one_out.h"
#include "trainer/advantages/optimal_baseline.h"
#include "trainer/advantages/pass_at_k.h"
#include "trainer/advantages/per_reward.h"
#include "trainer/advantages/reward_to_go.h"
#include "trainer/advantages/token_reward.h"
#include "trainer/advantages/whiten.h"

namespace rein::trainer {
namespace {

TokenRows Spread(const std::vector<double>& advantage, const std::vector<int64_t>& targets) {
  TokenRows rows(advantage.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].assign(static_cast<size_t>(targets[i]), advantage[i]);
  }
  return rows;
}

std::vector<double> PenalizedRewards(const AdvantageInputs& in) {
  std::vector<double> reward = in.reward;
  for (size_t i = 0; i < in.penalty.size(); ++i) {
    for (double penalty : in.penalty[i]) reward[i] -= penalty;
  }
  return reward;
}

TokenRows TokenRewards(const AdvantageInputs& in) {
  TokenRows reward = RewardAtEnd(in.reward, in.targets);
  for (size_t i = 0; i < in.earned.size(); ++i) {
    if (!in.earned[i].empty()) reward[i] = in.earned[i];
  }
  for (size_t i = 0; i < in.penalty.size(); ++i) {
    for (size_t t = 0; t < in.penalty[i].size(); ++t) reward[i][t] -= in.penalty[i][t];
  }
  return reward;
}

TokenRows Unwhitened(const AdvantageSettings& s, const AdvantageInputs& in) {
  auto spread = [&](const std::vector<double>& advantage) { return Spread(advantage, in.targets); };
  switch (s.kind) {
    case AdvantageKind::kGroupRelative:
      return spread(
          GroupRelative(PenalizedRewards(in), in.group, {s.normalize_by_std, s.epsilon}));
    case AdvantageKind::kLeaveOneOut:
      return spread(LeaveOneOut(PenalizedRewards(in), in.group));
    case AdvantageKind::kReinforcePpBaseline:
      return spread(GroupRelative(PenalizedRewards(in), in.group, {.normalize_by_std = false}));
    case AdvantageKind::kOptimalBaseline:
      return spread(OptimalBaseline(PenalizedRewards(in), in.group, in.targets));
    case AdvantageKind::kGpg:
      return spread(GroupPolicyGradient(PenalizedRewards(in), in.group));
    case AdvantageKind::kPassAtK:
      return spread(PassAtK(PenalizedRewards(in), in.group, {s.normalize_by_std, s.epsilon}));
    case AdvantageKind::kPerReward:
      return spread(PerReward(in.parts, s.part_weights, in.group, s.epsilon));
    case AdvantageKind::kReinforcePp:
    case AdvantageKind::kRewardToGo:
      return RewardToGo(TokenRewards(in), s.gamma);
    case AdvantageKind::kGreedyBaseline:
    case AdvantageKind::kGae:
      break;
  }
  TokenRows rows = RewardToGo(TokenRewards(in), s.gamma);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (double& advantage : rows[i]) advantage -= in.greedy_reward[i];
  }
  return rows;
}

}  // namespace

Advantages EstimateAdvantages(const AdvantageSettings& settings, const AdvantageInputs& inputs) {
  Advantages result;
  if (settings.kind == AdvantageKind::kGae) {
    const GaeSettings gae_settings{settings.gamma, settings.lambda};
    Gae gae = settings.turns
                  ? TurnGae(TokenRewards(inputs), inputs.value, inputs.turn, gae_settings)
                  : TokenGae(TokenRewards(inputs), inputs.value, gae_settings);
    result = {std::move(gae.advantage), std::move(gae.returns)};
  } else {
    result.advantage = Unwhitened(settings, inputs);
  }
  const bool whitens = settings.whiten || settings.kind == AdvantageKind::kReinforcePp ||
                       settings.kind == AdvantageKind::kReinforcePpBaseline;
  if (whitens) result.advantage = Whiten(result.advantage);
  return result;
}

}  // namespace rein::trainer
