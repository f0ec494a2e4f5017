// LengthPenalty: 0 for completions of a wanted length, down to -1 and below for longer ones (the
// soft overlong punishment of DAPO, arXiv 2503.14476 eq. 13), -1 for shorter ones.

#pragma once

#include <cstdint>

namespace rein::reward {

struct LengthOptions {
  // The score is -1 here, and falls on in proportion beyond.
  uint32_t max_tokens = 0;
  // The score begins to fall so many tokens earlier; 0: a step from 0 to -1 at max_tokens.
  uint32_t buffer_tokens = 0;
  // Shorter completions score -1.
  uint32_t min_tokens = 0;
};

double LengthPenalty(uint32_t tokens, const LengthOptions& options);

}  // namespace rein::reward
