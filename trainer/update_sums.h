// UpdateSums adds up the figures of an Update over its microbatches, then over ranks.

#pragma once

#include <vector>

#include "absl/status/status.h"

#include "common/parallel/process_group.h"
#include "trainer/algorithms/algorithm.h"
#include "trainer/mismatch.h"
#include "trainer/router_sums.h"
#include "trainer/training_sequence.h"

namespace rein::trainer {

struct UpdateSums {
  explicit UpdateSums(const Algorithm& algorithm);

  // Afterwards every rank holds the figures of all. Every rank must call it.
  absl::Status ReduceOver(parallel::ProcessGroup& group);

  // "loss", "mtp_loss" where it is trained, the algorithm's own means and maxima, "tokens", "computed_tokens", "trained_tokens"; where tokens were
  // compared with the generator's also "mismatch_max", the largest difference, and "mismatch_tokens", how many differ
  // by more than is promised.
  std::vector<Metric> Metrics(const Algorithm& algorithm) const;

  double loss = 0;
  double mtp_loss = 0;             // of multi-token prediction, without its weight; 0: there is none
  double tokens = 0;               // of the sequences that were computed
  double computed_tokens = 0;      // fewer where siblings share the prompt
  double trained_tokens = 0;       // targets
  double trained_sequences = 0;
  std::vector<double> token_sums;  // of Algorithm::token_mean_names
  std::vector<double> sequence_sums;  // of Algorithm::sequence_mean_names
  std::vector<double> maxima;      // of Algorithm::token_max_names
  RouterSums routers;
  MismatchSums mismatch;
};

// The sum, or the largest number, of each figure, double, where they are and without gradients; undefined without figures.
at::Tensor SumsOf(const std::vector<at::Tensor>& figures);
at::Tensor MaximaOf(const std::vector<at::Tensor>& figures);
// Adds what SumsOf() gave, on the host, to each of `sums`.
void AddSums(const at::Tensor& host, std::vector<double>* sums);

}  // namespace rein::trainer
