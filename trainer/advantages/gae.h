// Generalised advantage estimation.

#pragma once

#include <cstdint>
#include <vector>

#include "trainer/advantages/token_rows.h"

namespace rein::trainer {

struct GaeSettings {
  double gamma = 1;
  double lambda = 1;
};

struct Gae {
  TokenRows advantage;  // before any whitening
  TokenRows returns;    // advantage + value: what the critic learns
};

// GAE (arXiv 1506.02438; verl compute_gae_advantage_return):
//   d_t = r_t + gamma V_(t+1) - V_t,   A_t = d_t + gamma lambda A_(t+1)
// over targets only: observation tokens between turns are skipped, the carry crosses them undecayed, and
// values there do not matter. V and A are 0 after the last target (TRL, ROLL and slime differ: they run over
// observations too).
Gae TokenGae(const TokenRows& token_reward, const TokenRows& value, const GaeSettings& settings);

// The same with turns for time steps (AReaL): the reward of a turn is the sum over its tokens, its value
// that of its first token; every token of a turn gets its advantage and return. `turn` holds a label for
// each token; a turn is a run of equal ones. `last_value`, when not empty, holds for each sequence the value
// after its last turn (of one that was cut); else it is 0.
Gae TurnGae(const TokenRows& token_reward, const TokenRows& value,
            const std::vector<std::vector<int64_t>>& turn, const GaeSettings& settings,
            const std::vector<double>& last_value = {});

}  // namespace rein::trainer
