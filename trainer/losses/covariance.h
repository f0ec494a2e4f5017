// Which tokens lower a policy's entropy most: those whose log-prob and advantage vary together (arXiv 2505.22617;
// verl compute_policy_loss_clip_cov, compute_policy_loss_kl_cov).
//
//   cov_t = (logprob_t - mean logprob) (A_t - mean A), means over all targets of the Update
//
// The log-probs are those of the policy that sampled, so that the choice does not depend on how a batch is split into
// microbatches or ranks; verl takes the current ones of a microbatch, which are equal before the first step.

#pragma once

#include <cstdint>
#include <vector>

#include "trainer/advantages/token_rows.h"

namespace rein::trainer {

struct CovarianceRange {
  double low = 1, high = 5;  // both excluded
};

// One bit for each target: 1 where it was chosen.
using TokenChoice = std::vector<std::vector<uint8_t>>;

TokenRows Covariances(const TokenRows& logprob, const TokenRows& advantage);

// Clip-Cov: max(1, share * N) of the tokens inside the range, N all tokens, drawn without replacement; all of them
// when there are fewer. The draw depends on `key` and the token's place alone.
TokenChoice DrawInRange(const TokenRows& covariance, const CovarianceRange& range, double share,
                        uint64_t key);

// KL-Cov: the max(1, share * N) tokens of the highest covariance; of equals the first.
TokenChoice HighestShare(const TokenRows& covariance, double share);

}  // namespace rein::trainer
