// RouterSums adds up what the routers of a mixture of experts did in an Update, over microbatches and ranks.

#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>

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

  // How often each expert of each layer was chosen since the last call, on all ranks: [layers, experts]; undefined without
  // routers. Every rank must call it.
  absl::StatusOr<at::Tensor> TakeLoad(parallel::ProcessGroup& group);

  // "router_entropy" (nats, of a row), "router_highest_load" and "router_lowest_load" (of an expert of any layer, relative to
  // even shares), "router_idle_experts" (share of them), and, where there is one, "router_balance_loss" and "router_z_loss"
  // (mean of the microbatches, by their part of the minibatch), "router_dropped", the share of choices beyond an
  // expert's capacity, and "router_replayed" and "router_differing", how many choices were replayed, and would have been
  // other ones. Nothing for a model without routers.
  std::vector<Metric> Metrics(size_t optimizer_steps) const;

 private:
  std::vector<double> choices_;  // [layers, experts]
  std::vector<double> taken_;    // the part of choices_ that TakeLoad() has given
  double layers_ = 0, balance_loss_ = 0, z_loss_ = 0, entropy_ = 0, rows_ = 0, dropped_ = 0, replayed_ = 0, differing_ = 0;
  bool balanced_ = false, small_ = false, limited_ = false;  // there is an auxiliary loss, a z-loss, a capacity
};

}  // namespace rein::trainer
