// From rewards to the advantage of every target token, by the chosen estimator.

#pragma once

#include <cstdint>
#include <vector>

#include "trainer/advantages/token_rows.h"

namespace rein::trainer {

enum class AdvantageKind {
  kGroupRelative,        // group_relative.h
  kLeaveOneOut,          // leave_one_out.h
  kReinforcePp,          // rewards to go, whitened
  kReinforcePpBaseline,  // reward - group mean, whitened
  kGreedyBaseline,       // rewards to go - reward of the greedy completion (ReMax)
  kOptimalBaseline,      // optimal_baseline.h
  kGpg,                  // gpg.h
  kPassAtK,              // pass_at_k.h
  kPerReward,            // per_reward.h
  kRewardToGo,           // rewards to go
  kGae,                  // gae.h; needs values
};

struct AdvantageSettings {
  AdvantageKind kind = AdvantageKind::kGroupRelative;
  bool normalize_by_std = true;      // kGroupRelative, kPassAtK
  double epsilon = 1e-6;             // of that division, and of kPerReward's
  double gamma = 1;                  // of rewards to go, and GAE
  double lambda = 1;                 // of GAE
  bool turns = false;                // kGae: turns are time steps, not tokens
  bool whiten = false;               // over the batch, at the end
  std::vector<double> part_weights;  // kPerReward: of each reward
};

// One entry for each sequence.
struct AdvantageInputs {
  std::vector<double> reward;
  std::vector<uint32_t> group;
  std::vector<int64_t> targets;
  std::vector<std::vector<double>> parts;  // kPerReward: the score of each reward
  std::vector<double> greedy_reward;       // kGreedyBaseline
  TokenRows earned;  // what of `reward` each target earned, where it is not all at the last one; empty rows: it is
  TokenRows value;    // kGae: the critic's, of each target
  std::vector<std::vector<int64_t>> turn;  // kGae with turns: a label of each target's turn
  TokenRows penalty;  // taken from each token's reward (KL, times its coefficient); empty: none
};

struct Advantages {
  TokenRows advantage;
  TokenRows returns;  // kGae: what the critic learns; else no rows
};

// Estimators over whole completions take the penalty from its reward as a sum (with kPerReward it is not
// allowed) and give every token of a completion the same advantage.
Advantages EstimateAdvantages(const AdvantageSettings& settings, const AdvantageInputs& inputs);

}  // namespace rein::trainer
