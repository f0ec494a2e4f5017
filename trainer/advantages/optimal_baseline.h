// Advantages against the group's mean reward weighted by length.

#pragma once

#include <cstdint>
#include <vector>

namespace rein::trainer {

// OPO (arXiv 2505.23585; verl compute_opo_outcome_advantage):
//   A_i = r_i - sum(n_j r_j) / sum(n_j)     over the group of i; n_j: targets of completion j
// the baseline of least variance when gradients grow with length. A group of one keeps its reward; a group
// of equal rewards gets exact zeros.
std::vector<double> OptimalBaseline(const std::vector<double>& reward,
                                    const std::vector<uint32_t>& group,
                                    const std::vector<int64_t>& targets);

}  // namespace rein::trainer
