// Advantages when several rewards are summed: each is normalised on its own first.

#pragma once

#include <cstdint>
#include <vector>

#include "trainer/advantages/group_relative.h"

namespace rein::trainer {

// GDPO (arXiv 2601.05242; TRL multi_objective_aggregation "normalize_then_sum"):
//   a_i = sum over rewards k of w_k (r_ik - mean_k) / (deviation_k + epsilon)     within the group of i
//   A_i = (a_i - mean a) / (deviation of a + epsilon)                             over the whole batch
// `parts[i][k]` is the score of completion i by reward k. Deviations are unbiased; where all are equal the
// result is an exact 0. `weight` has one entry for each k.
std::vector<double> PerReward(const std::vector<std::vector<double>>& parts,
                              const std::vector<double>& weight, const std::vector<uint32_t>& group,
                              double epsilon);

}  // namespace rein::trainer
