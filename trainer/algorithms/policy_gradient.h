// Policy-gradient reinforcement learning as a composition of advantage, ratio, objective, KL, correction and
// aggregation. GRPO, PPO's relatives and REINFORCE's are settings of this one algorithm.

#pragma once

#include <optional>
#include <variant>

#include "trainer/algorithms/algorithm.h"
#include "trainer/losses/cispo.h"
#include "trainer/losses/clipped_surrogate.h"
#include "trainer/losses/dppo.h"
#include "trainer/losses/kl.h"
#include "trainer/losses/off_policy.h"
#include "trainer/losses/ratio.h"
#include "trainer/losses/sapo.h"

namespace rein::trainer {

struct PlainGradient {};  // reinforce.h

// OutsideLossSettings: the loss of a service, algorithm.h.
using Surrogate =
    std::variant<ClipRange, WeightRange, SoftGate, DivergenceMask, PlainGradient, OutsideLossSettings>;

struct PolicyGradientSettings {
  std::string name = "grpo";
  double temperature = 1;
  size_t epochs = 1, minibatches = 1;
  bool mask_truncated = false;
  bool recompute_old = false;
  AdvantageSettings advantage;
  RatioLevel ratio = RatioLevel::kToken;  // kGeometric: with a ClipRange, whose bounds are then of the logarithm
  Surrogate surrogate = ClipRange{};
  Aggregation aggregation = Aggregation::kTokenMean;
  double horizon = 1;
  KlControl kl;
  KlEstimator kl_estimator = KlEstimator::kK3;
  bool kl_importance_weighted = false;
  double entropy_coefficient = 0;
  std::optional<ImportanceCorrection> correction;
  std::optional<Rejection> rejection;
  std::optional<double> mask_negative_above;
  std::optional<TokenSelection> clip_cov;  // these tokens have no loss
  std::optional<TokenSelection> kl_cov;    // these have a penalty on |policy - old|; not both
  double kl_cov_coefficient = 1;
  std::optional<CriticSettings> critic;
};

Algorithm PolicyGradient(const PolicyGradientSettings& settings);

}  // namespace rein::trainer
