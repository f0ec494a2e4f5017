#include "reward/rules/length.h"

namespace rein::reward {

double LengthPenalty(uint32_t tokens, const LengthOptions& options) {
  if (tokens < options.min_tokens) return -1.0;
  if (options.buffer_tokens == 0) return tokens < options.max_tokens ? 0.0 : -1.0;
  double free_tokens = static_cast<double>(options.max_tokens) - options.buffer_tokens;
  if (tokens <= free_tokens) return 0.0;
  return (free_tokens - tokens) / options.buffer_tokens;
}

}  // namespace rein::reward
