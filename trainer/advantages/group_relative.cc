#include "trainer/advantages/group_relative.h"

#include <cmath>

#include "trainer/advantages/group_members.h"

namespace rein::trainer {

std::vector<double> GroupRelative(const std::vector<double>& reward,
                                  const std::vector<uint32_t>& group,
                                  const GroupRelativeSettings& settings) {
  std::vector<double> advantage(reward.size());
  for (const auto& [label, indices] : GroupMembers(group)) {
    const double n = static_cast<double>(indices.size());
    double mean = 0, deviation = 1;
    if (n > 1 && AllEqual(reward, indices)) continue;
    if (n > 1) {
      for (size_t i : indices) mean += reward[i] / n;
      double squares = 0;
      for (size_t i : indices) squares += (reward[i] - mean) * (reward[i] - mean);
      deviation = std::sqrt(squares / (n - 1));
    }
    for (size_t i : indices) {
      const double scale = settings.normalize_by_std ? deviation + settings.epsilon : 1;
      advantage[i] = (reward[i] - mean) / scale;
    }
  }
  return advantage;
}

}  // namespace rein::trainer
