// Group policy gradient: centred rewards, scaled up for the completions that earned nothing.

#pragma once

#include <cstdint>
#include <vector>

namespace rein::trainer {

// GPG (arXiv 2504.02546; verl compute_gpg_outcome_advantage, f_norm 1):
//   A_i = alpha (r_i - mean),   alpha = completions / max(1, completions with a reward other than 0)
// The mean is over the group of i, alpha over the whole batch. A group of one keeps its reward times alpha.
std::vector<double> GroupPolicyGradient(const std::vector<double>& reward,
                                        const std::vector<uint32_t>& group);

}  // namespace rein::trainer
