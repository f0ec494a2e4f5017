#include "trainer/router_sums.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

#include "common/status/status_macros.h"

namespace rein::trainer {

void RouterSums::Add(const nn::RouterRecord* record) {
  if (record == nullptr || record->rows == 0) return;
  at::Tensor host = record->choices_LE.to(at::kCPU, at::kDouble).contiguous();
  choices_.resize(static_cast<size_t>(host.numel()), 0);
  for (size_t i = 0; i < choices_.size(); ++i) choices_[i] += host.const_data_ptr<double>()[i];
  layers_ = static_cast<double>(host.size(0));
  entropy_ += record->entropy.item<double>();
  rows_ += static_cast<double>(record->rows);
  balanced_ = record->balance > 0;
  if (balanced_) balance_loss_ += record->share * record->BalanceLoss();
  small_ = record->z_loss > 0;
  if (small_) z_loss_ += record->share * record->ZLoss();
  limited_ = record->capacity > 0;
  if (limited_) dropped_ += record->dropped.item<double>();
  if (!record->replayed.defined()) return;
  replayed_ += record->replayed.item<double>();
  differing_ += record->differing.item<double>();
}

absl::StatusOr<at::Tensor> RouterSums::TakeLoad(parallel::ProcessGroup& group) {
  at::Tensor shape = at::tensor({static_cast<double>(choices_.size()), layers_}, at::kDouble);
  if (group.size() > 1) {  // a rank without a microbatch has no shape of its own yet
    at::Tensor all = at::empty({group.size(), 2}, at::kDouble);
    std::vector<at::Tensor> rows = all.unbind(0);
    REIN_RETURN_IF_ERROR(group.AllGather(shape, rows));
    shape = all.amax(0);
  }
  choices_.resize(static_cast<size_t>(shape[0].item<double>()), 0);
  layers_ = shape[1].item<double>();
  if (choices_.empty()) return at::Tensor();
  taken_.resize(choices_.size(), 0);
  at::Tensor load = at::tensor(choices_, at::kDouble) - at::tensor(taken_, at::kDouble);
  taken_ = choices_;
  REIN_RETURN_IF_ERROR(group.AllReduceSum(load));
  return load.view({static_cast<int64_t>(layers_), -1});
}

absl::Status RouterSums::ReduceOver(parallel::ProcessGroup& group) {
  if (group.size() == 1) return absl::OkStatus();
  // A rank without a microbatch has no shape of its own yet.
  at::Tensor shape = at::tensor({static_cast<double>(choices_.size()), layers_, balanced_ ? 1.0 : 0.0,
                                 small_ ? 1.0 : 0.0, limited_ ? 1.0 : 0.0}, at::kDouble);
  at::Tensor all = at::empty({group.size(), 5}, at::kDouble);
  std::vector<at::Tensor> rows = all.unbind(0);
  REIN_RETURN_IF_ERROR(group.AllGather(shape, rows));
  at::Tensor known = all.amax(0);
  choices_.resize(static_cast<size_t>(known[0].item<double>()), 0);
  layers_ = known[1].item<double>();
  balanced_ = known[2].item<double>() > 0;
  small_ = known[3].item<double>() > 0;
  limited_ = known[4].item<double>() > 0;
  std::vector<double> flat = choices_;
  flat.insert(flat.end(), {balance_loss_, entropy_, rows_, z_loss_, dropped_, replayed_, differing_});
  at::Tensor sums = at::tensor(flat, at::kDouble);
  REIN_RETURN_IF_ERROR(group.AllReduceSum(sums));
  const auto* value = sums.const_data_ptr<double>();
  std::copy_n(value, choices_.size(), choices_.begin());
  value += choices_.size();
  balance_loss_ = value[0];
  entropy_ = value[1];
  rows_ = value[2];
  z_loss_ = value[3];
  dropped_ = value[4];
  replayed_ = value[5];
  differing_ = value[6];
  return absl::OkStatus();
}

std::vector<Metric> RouterSums::Metrics(size_t optimizer_steps) const {
  if (rows_ == 0) return {};
  const size_t layers = static_cast<size_t>(layers_), experts = choices_.size() / layers;
  double highest = 0, lowest = static_cast<double>(experts), idle = 0, counted = 0;
  for (size_t l = 0; l < layers; ++l) {
    const double* load = choices_.data() + l * experts;
    double all = 0;
    for (size_t e = 0; e < experts; ++e) all += load[e];
    if (all == 0) continue;  // a dense layer
    for (size_t e = 0; e < experts; ++e) {
      const double relative = load[e] * static_cast<double>(experts) / all;
      highest = std::max(highest, relative);
      lowest = std::min(lowest, relative);
      idle += load[e] == 0;
      counted += 1;
    }
  }
  std::vector<Metric> metrics{{"router_entropy", entropy_ / rows_},
                              {"router_highest_load", highest},
                              {"router_lowest_load", lowest},
                              {"router_idle_experts", idle / counted}};
  const auto steps = static_cast<double>(optimizer_steps);
  if (balanced_) metrics.push_back({"router_balance_loss", balance_loss_ / steps});
  if (small_) metrics.push_back({"router_z_loss", z_loss_ / steps});
  if (limited_) metrics.push_back({"router_dropped", dropped_ / std::accumulate(choices_.begin(), choices_.end(), 0.0)});
  if (replayed_ > 0) {
    metrics.push_back({"router_replayed", replayed_});
    metrics.push_back({"router_differing", differing_});
  }
  return metrics;
}

}  // namespace rein::trainer
