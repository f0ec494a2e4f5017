#include "trainer/advantages/gpg.h"

#include <algorithm>

#include "trainer/advantages/group_relative.h"

namespace rein::trainer {

std::vector<double> GroupPolicyGradient(const std::vector<double>& reward,
                                        const std::vector<uint32_t>& group) {
  const auto zeros = std::count(reward.begin(), reward.end(), 0.0);
  const double count = static_cast<double>(reward.size());
  const double alpha = count / std::max(1.0, count - static_cast<double>(zeros));
  std::vector<double> advantage =
      GroupRelative(reward, group, {.normalize_by_std = false, .epsilon = 0});
  for (double& a : advantage) a *= alpha;
  return advantage;
}

}  // namespace rein::trainer
