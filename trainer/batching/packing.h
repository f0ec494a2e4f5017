// Cuts a batch of sequences into microbatches under a token budget, and a batch of groups into
// minibatches. Pure functions of lengths: the same input gives the same plan on every rank.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rein::trainer {

// Indices of the sequences of each microbatch. Sequences keep their order; a microbatch is closed when
// the next sequence would exceed `budget_tokens`; a longer sequence gets one of its own. Of each sequence
// shared[i] tokens cost nothing in one microbatch with the sequence before it.
std::vector<std::vector<size_t>> PackMicrobatches(const std::vector<int64_t>& length,
                                                  const std::vector<int64_t>& shared,
                                                  int64_t budget_tokens);

// The same for sequences that stand for themselves: longest first into the microbatch that they fill best (best-fit
// decreasing, at most 11/9 of the fewest possible), each in the original order, as are the microbatches by their first.
std::vector<std::vector<size_t>> PackBestFit(const std::vector<int64_t>& length,
                                             int64_t budget_tokens);

// Splits sequences into `parts` minibatches by group: part p gets the groups whose rank among the distinct
// labels, in order of first appearance, falls into the p-th of equal ranges. Fewer groups than parts give
// fewer minibatches; none is empty.
std::vector<std::vector<size_t>> SplitByGroup(const std::vector<uint32_t>& group, size_t parts);

// Gives each of `ranks` its sequences: longest first to the rank with the fewest tokens so far (ties to
// the lower rank), each share in the original order.
std::vector<std::vector<size_t>> BalanceOverRanks(const std::vector<int64_t>& length, size_t ranks);

}  // namespace rein::trainer
