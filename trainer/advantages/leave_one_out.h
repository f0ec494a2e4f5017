// Advantages against the mean of a completion's siblings, itself left out.

#pragma once

#include <cstdint>
#include <vector>

namespace rein::trainer {

// RLOO (arXiv 2402.14740; verl compute_rloo_outcome_advantage):
//   A_i = r_i - mean of the other members = n / (n - 1) (r_i - mean)
// A group of one keeps its reward (verl's vectorised form gives 0; TRL asks for two). A group of equal
// rewards gets exact zeros.
std::vector<double> LeaveOneOut(const std::vector<double>& reward,
                                const std::vector<uint32_t>& group);

}  // namespace rein::trainer
