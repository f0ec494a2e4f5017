#include "trainer/advantages/reward_to_go.h"

namespace rein::trainer {

TokenRows RewardToGo(const TokenRows& token_reward, double gamma) {
  TokenRows sums = token_reward;
  for (auto& row : sums) {
    for (size_t t = row.size(); t-- > 1;) row[t - 1] += gamma * row[t];
  }
  return sums;
}

}  // namespace rein::trainer
