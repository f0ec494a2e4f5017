#include "trainer/advantages/group_relative.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace rein::trainer {

std::vector<double> GroupRelative(const std::vector<double>& reward,
                                  const std::vector<uint32_t>& group,
                                  const GroupRelativeSettings& settings) {
  std::map<uint32_t, std::vector<size_t>> members;
  for (size_t i = 0; i < group.size(); ++i) members[group[i]].push_back(i);
  std::vector<double> advantage(reward.size());
  for (const auto& [label, indices] : members) {
    const double n = static_cast<double>(indices.size());
    double mean = 0, deviation = 1;
    const bool all_equal = std::all_of(indices.begin(), indices.end(),
                                       [&](size_t i) { return reward[i] == reward[indices[0]]; });
    if (n > 1 && all_equal) continue;  // rounding of the mean must not invent a signal
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
