#include "trainer/update_sums.h"

#include <algorithm>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/status/status_macros.h"

namespace rein::trainer {

at::Tensor SumsOf(const std::vector<at::Tensor>& figures) {
  at::NoGradGuard no_grad;
  return figures.empty() ? at::Tensor() : at::stack(figures).sum(1, false, at::kDouble);
}

at::Tensor MaximaOf(const std::vector<at::Tensor>& figures) {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> maxima;
  for (const at::Tensor& figure : figures) maxima.push_back(figure.max().to(at::kDouble));
  return maxima.empty() ? at::Tensor() : at::stack(maxima);
}

void AddSums(const at::Tensor& host, std::vector<double>* sums) {
  for (size_t i = 0; host.defined() && i < sums->size(); ++i) (*sums)[i] += host.const_data_ptr<double>()[i];
}

UpdateSums::UpdateSums(const Algorithm& algorithm)
    : token_sums(algorithm.token_mean_names.size(), 0),
      sequence_sums(algorithm.sequence_mean_names.size(), 0),
      maxima(algorithm.token_max_names.size(), -std::numeric_limits<double>::infinity()) {}

absl::Status UpdateSums::ReduceOver(parallel::ProcessGroup& group) {
  if (group.size() == 1) return absl::OkStatus();
  REIN_RETURN_IF_ERROR(routers.ReduceOver(group));
  std::vector<double> flat{loss, tokens, computed_tokens, trained_tokens, trained_sequences, mismatch.compared, mismatch.beyond, mtp_loss};
  flat.insert(flat.end(), token_sums.begin(), token_sums.end());
  flat.insert(flat.end(), sequence_sums.begin(), sequence_sums.end());
  at::Tensor sums = at::tensor(flat, at::kDouble);
  REIN_RETURN_IF_ERROR(group.AllReduceSum(sums));
  const auto* value = sums.const_data_ptr<double>();
  loss = value[0];
  tokens = value[1];
  computed_tokens = value[2];
  trained_tokens = value[3];
  trained_sequences = value[4];
  mismatch.compared = value[5];
  mismatch.beyond = value[6];
  mtp_loss = value[7];
  value += 8;
  std::copy_n(value, token_sums.size(), token_sums.begin());
  std::copy_n(value + token_sums.size(), sequence_sums.size(), sequence_sums.begin());
  std::vector<double> own_maxima = maxima;
  own_maxima.push_back(mismatch.largest);
  const auto count = static_cast<int64_t>(own_maxima.size());
  at::Tensor all = at::empty({group.size(), count}, at::kDouble);
  std::vector<at::Tensor> rows = all.unbind(0);
  REIN_RETURN_IF_ERROR(group.AllGather(at::tensor(own_maxima, at::kDouble), rows));
  at::Tensor highest = all.amax(0);
  std::copy_n(highest.const_data_ptr<double>(), count - 1, maxima.begin());
  mismatch.largest = highest[count - 1].item<double>();
  return absl::OkStatus();
}

std::vector<Metric> UpdateSums::Metrics(const Algorithm& algorithm) const {
  std::vector<Metric> metrics{{"loss", loss}};
  if (mtp_loss != 0) metrics.push_back({"mtp_loss", mtp_loss});
  std::vector<double> means;
  for (size_t i = 0; i < token_sums.size(); ++i) {
    means.push_back(token_sums[i] / std::max(trained_tokens, 1.0));
    if (!algorithm.token_mean_names[i].empty()) {
      metrics.push_back({algorithm.token_mean_names[i], means[i]});
    }
  }
  for (size_t i = 0; i < sequence_sums.size(); ++i) {
    means.push_back(sequence_sums[i] / std::max(trained_sequences, 1.0));
    if (!algorithm.sequence_mean_names[i].empty()) {
      metrics.push_back({algorithm.sequence_mean_names[i], means.back()});
    }
  }
  if (algorithm.derived) {
    for (Metric& metric : algorithm.derived(means)) metrics.push_back(std::move(metric));
  }
  for (size_t i = 0; i < maxima.size(); ++i) {
    // Where nothing was trained on there is no largest.
    metrics.push_back({algorithm.token_max_names[i], trained_tokens > 0 ? maxima[i] : 0});
  }
  if (mismatch.compared > 0) {
    metrics.push_back({"mismatch_max", mismatch.largest});
    metrics.push_back({"mismatch_tokens", mismatch.beyond});
  }
  metrics.push_back({"tokens", tokens});
  metrics.push_back({"computed_tokens", computed_tokens});
  metrics.push_back({"trained_tokens", trained_tokens});
  return metrics;
}

}  // namespace rein::trainer
