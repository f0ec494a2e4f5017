#include "trainer/advantages/optimal_baseline.h"

#include <algorithm>

#include "trainer/advantages/group_members.h"

namespace rein::trainer {

std::vector<double> OptimalBaseline(const std::vector<double>& reward,
                                    const std::vector<uint32_t>& group,
                                    const std::vector<int64_t>& targets) {
  std::vector<double> advantage(reward.size());
  for (const auto& [label, members] : GroupMembers(group)) {
    if (members.size() > 1 && AllEqual(reward, members)) continue;
    double weighted = 0, length = 0;
    for (size_t i : members) {
      weighted += static_cast<double>(targets[i]) * reward[i];
      length += static_cast<double>(targets[i]);
    }
    const double baseline = members.size() > 1 ? weighted / std::max(length, 1.0) : 0;
    for (size_t i : members) advantage[i] = reward[i] - baseline;
  }
  return advantage;
}

}  // namespace rein::trainer
