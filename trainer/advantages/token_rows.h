// One number for each target token: row i belongs to sequence i and has as many entries as it has targets.
// Tokens that are not targets (prompts, tool output) are not there, so nothing decays across them.

#pragma once

#include <cstddef>
#include <vector>

namespace rein::trainer {

using TokenRows = std::vector<std::vector<double>>;

}  // namespace rein::trainer
