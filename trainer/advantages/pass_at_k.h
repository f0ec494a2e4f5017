// Advantages for the best of k attempts rather than for their mean.

#pragma once

#include <cstdint>
#include <vector>

#include "trainer/advantages/group_relative.h"

namespace rein::trainer {

// pass@k (arXiv 2503.19595; verl compute_grpo_passk_outcome_advantage): only the best member of a group
// (the first of several) gets an advantage, all others 0:
//   A = (r_best - r_second) / (deviation + epsilon), or undivided
// with the unbiased deviation of the group. A group of one gets 0 (verl refuses it).
std::vector<double> PassAtK(const std::vector<double>& reward, const std::vector<uint32_t>& group,
                            const GroupRelativeSettings& settings);

}  // namespace rein::trainer
