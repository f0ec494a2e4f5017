// RouterSums adds up what the routers of a mixture of experts did in an Update, over microbatches and ranks.

#pragma once

#include <vector>

#include "absl/status/status.h"

#include "common/nn/router_record.h"
#include "common/parallel/process_group.h"
#include "trainer/algorithms/algorithm.h"

namespace rein::trainer {

class RouterSums {
 public:
  // What a pass noted; null: nothing.
  void Add(const nn::RouterRecord* record);

  // Afterwards every rank holds the figures of all. Every rank must call it.
  absl::Status ReduceOver(parallel::ProcessGroup& group);

  // "router_entropy" (nats, of a row), "router_highest_load" and "router_lowest_load" (of an expert of any layer, relative to
  // even shares), "router_idle_experts" (share of them), and, where there is an auxiliary loss, "router_balance_loss" (mean of
  // the microbatches, by their part of the minibatch). Nothing for a model without routers.
  std::vector<Metric> Metrics(size_t optimizer_steps) const;

 private:
  std::vector<double> choices_;  // [layers, experts]
  double layers_ = 0, balance_loss_ = 0, entropy_ = 0, rows_ = 0;
  bool balanced_ = false;
};

}  // namespace rein::trainer
