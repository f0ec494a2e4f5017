// Advantages with mean 0 and variance 1 over all tokens of a batch.

#pragma once

#include "trainer/advantages/token_rows.h"

namespace rein::trainer {

// x' = (x - mean) / sqrt(variance + 1e-8), the unbiased variance over all tokens (verl masked_whiten;
// OpenRLHF takes the population variance, clamped at 1e-8). Fewer than two tokens become 0.
TokenRows Whiten(const TokenRows& x);

}  // namespace rein::trainer
