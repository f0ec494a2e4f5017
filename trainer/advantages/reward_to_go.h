// Discounted sums of the rewards from a token on.

#pragma once

#include "trainer/advantages/token_rows.h"

namespace rein::trainer {

// R_t = r_t + gamma R_(t+1) over the targets of each sequence (REINFORCE; REINFORCE++, arXiv 2501.03262,
// whitens it over the batch; ReMax, arXiv 2310.10505, subtracts the reward of a greedy completion).
TokenRows RewardToGo(const TokenRows& token_reward, double gamma);

}  // namespace rein::trainer
