#include "trainer/advantages/token_reward.h"

#include <algorithm>

namespace rein::trainer {

TokenRows RewardAtEnd(const std::vector<double>& reward, const std::vector<int64_t>& targets) {
  TokenRows rows(reward.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].resize(static_cast<size_t>(targets[i]), 0.0);
    if (!rows[i].empty()) rows[i].back() = reward[i];
  }
  return rows;
}

void SubtractKl(const TokenRows& policy_logprob, const TokenRows& reference_logprob,
                double coefficient, TokenRows& token_reward) {
  for (size_t i = 0; i < token_reward.size(); ++i) {
    for (size_t t = 0; t < token_reward[i].size(); ++t) {
      token_reward[i][t] -= coefficient * (policy_logprob[i][t] - reference_logprob[i][t]);
    }
  }
}

double NextKlCoefficient(double coefficient, double kl, double target, double rollouts,
                         double horizon) {
  const double error = std::clamp(kl / target - 1, -0.2, 0.2);
  return coefficient * (1 + error * rollouts / horizon);
}

}  // namespace rein::trainer
