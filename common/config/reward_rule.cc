#include "common/config/reward_rule.h"

#include <algorithm>

namespace rein::config {
namespace {

constexpr double kRuleSeconds = 10, kModelSeconds = 600;

}  // namespace

double TimeoutSeconds(const v1::RewardConfig& reward) {
  if (reward.has_timeout_seconds()) return reward.timeout_seconds();
  return reward.has_model() ? kModelSeconds : kRuleSeconds;
}

bool UsesRewardModels(const v1::JobConfig& job) {
  return std::any_of(job.rewards().begin(), job.rewards().end(),
                     [](const v1::RewardConfig& reward) { return reward.has_model(); });
}

}  // namespace rein::config
