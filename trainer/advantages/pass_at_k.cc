#include "trainer/advantages/pass_at_k.h"

#include <cmath>

#include "trainer/advantages/group_members.h"

namespace rein::trainer {

std::vector<double> PassAtK(const std::vector<double>& reward, const std::vector<uint32_t>& group,
                            const GroupRelativeSettings& settings) {
  std::vector<double> advantage(reward.size());
  for (const auto& [label, members] : GroupMembers(group)) {
    if (members.size() < 2) continue;
    size_t best = members[0];
    for (size_t i : members) best = reward[i] > reward[best] ? i : best;
    double second = -INFINITY, mean = 0, squares = 0;
    for (size_t i : members) {
      if (i != best) second = std::max(second, reward[i]);
      mean += reward[i] / static_cast<double>(members.size());
    }
    for (size_t i : members) squares += (reward[i] - mean) * (reward[i] - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(members.size() - 1));
    const double gap = reward[best] - second;
    if (gap == 0) continue;
    advantage[best] = settings.normalize_by_std ? gap / (deviation + settings.epsilon) : gap;
  }
  return advantage;
}

}  // namespace rein::trainer
