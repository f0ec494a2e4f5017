#include "trainer/advantages/per_reward.h"

#include <cstddef>

namespace rein::trainer {

std::vector<double> PerReward(const std::vector<std::vector<double>>& parts,
                              const std::vector<double>& weight, const std::vector<uint32_t>& group,
                              double epsilon) {
  const GroupRelativeSettings settings{.normalize_by_std = true, .epsilon = epsilon};
  std::vector<double> sum(parts.size());
  for (size_t k = 0; k < weight.size(); ++k) {
    std::vector<double> score;
    for (const std::vector<double>& own : parts) score.push_back(own[k]);
    const std::vector<double> normalized = GroupRelative(score, group, settings);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += weight[k] * normalized[i];
  }
  if (sum.size() < 2) return std::vector<double>(sum.size(), 0.0);
  return GroupRelative(sum, std::vector<uint32_t>(sum.size(), 0), settings);  // one group of all
}

}  // namespace rein::trainer
