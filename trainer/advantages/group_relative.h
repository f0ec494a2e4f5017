// Advantages of completions relative to their siblings.

#pragma once

#include <cstdint>
#include <vector>

namespace rein::trainer {

struct GroupRelativeSettings {
  bool normalize_by_std = true;  // false: Dr. GRPO (arXiv 2503.20783)
  double epsilon = 1e-6;         // added to the deviation; verl 1e-6, TRL 1e-4, OpenRLHF 1e-9
};

// GRPO (arXiv 2402.03300; verl compute_grpo_outcome_advantage):
//   A_i = (r_i - mean) / (deviation + epsilon)     mean and unbiased deviation over the group of i
// A group of one has mean 0 and deviation 1, so it keeps its reward; a group of equal rewards gets exact
// zeros. `group[i]` is any label; result i belongs to reward i. Rewards must be finite.
std::vector<double> GroupRelative(const std::vector<double>& reward,
                                  const std::vector<uint32_t>& group,
                                  const GroupRelativeSettings& settings);

}  // namespace rein::trainer
