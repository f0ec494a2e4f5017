// How the losses of tokens become one number: as a weight for each token, from global counts, so that any
// split of a batch into microbatches, packs or ranks adds up to the same loss and gradient.
//
//   loss = sum_t weight_t * loss_t

#pragma once

#include <cstdint>
#include <vector>

namespace rein::trainer {

// Names in brackets are verl's loss_agg_mode.
enum class Aggregation {
  kTokenMean,         // 1 / N                      (token-mean; DAPO, arXiv 2503.14476)
  kTokenSum,          // 1                          (token-sum; Tinker)
  kSequenceMean,      // 1 / (n_i S)                (seq-mean-token-mean; GRPO, arXiv 2402.03300)
  kSequenceSum,       // 1 / S                      (seq-mean-token-sum)
  kSequenceSumFixed,  // 1 / (S * horizon)          (seq-mean-token-sum-norm; Dr. GRPO, arXiv 2503.20783)
};

// Counts of the whole Update (or minibatch), over all ranks.
struct GlobalCounts {
  double tokens = 0;     // N: target tokens
  double sequences = 0;  // S: sequences with at least one target token
  double horizon = 1;    // kSequenceSumFixed only
};

// The weight of every target token of a sequence with `targets` of them; 0 when it has none.
double TokenWeight(Aggregation aggregation, double targets, const GlobalCounts& counts);

}  // namespace rein::trainer
