#include "trainer/losses/covariance.h"

#include <algorithm>
#include <tuple>

#include "common/random/philox.h"

namespace rein::trainer {
namespace {

double Mean(const TokenRows& rows) {
  double sum = 0, count = 0;
  for (const auto& row : rows) {
    for (double x : row) sum += x;
    count += static_cast<double>(row.size());
  }
  return sum / std::max(count, 1.0);
}

size_t WantedOf(const TokenRows& rows, double share) {
  size_t count = 0;
  for (const auto& row : rows) count += row.size();
  return std::max<size_t>(1, static_cast<size_t>(share * static_cast<double>(count)));
}

// Marks the first `wanted` places in the order of their keys, then of their place.
template <typename Key>
TokenChoice FirstOf(std::vector<std::tuple<Key, size_t, size_t>> places, size_t wanted,
                    const TokenRows& shape) {
  TokenChoice choice;
  for (const auto& row : shape) choice.emplace_back(row.size(), 0);
  wanted = std::min(wanted, places.size());
  std::nth_element(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(wanted), places.end());
  for (size_t k = 0; k < wanted; ++k) {
    choice[std::get<1>(places[k])][std::get<2>(places[k])] = 1;
  }
  return choice;
}

}  // namespace

TokenRows Covariances(const TokenRows& logprob, const TokenRows& advantage) {
  const double logprob_mean = Mean(logprob), advantage_mean = Mean(advantage);
  TokenRows covariance = logprob;
  for (size_t i = 0; i < covariance.size(); ++i) {
    for (size_t t = 0; t < covariance[i].size(); ++t) {
      covariance[i][t] = (logprob[i][t] - logprob_mean) * (advantage[i][t] - advantage_mean);
    }
  }
  return covariance;
}

TokenChoice DrawInRange(const TokenRows& covariance, const CovarianceRange& range, double share,
                        uint64_t key) {
  std::vector<std::tuple<uint64_t, size_t, size_t>> places;
  for (size_t i = 0; i < covariance.size(); ++i) {
    const uint64_t row_key = random::DeriveKey(key, i);
    for (size_t t = 0; t < covariance[i].size(); ++t) {
      if (!(covariance[i][t] > range.low && covariance[i][t] < range.high)) continue;
      places.emplace_back(random::DeriveKey(row_key, t), i, t);
    }
  }
  return FirstOf(std::move(places), WantedOf(covariance, share), covariance);
}

TokenChoice HighestShare(const TokenRows& covariance, double share) {
  std::vector<std::tuple<double, size_t, size_t>> places;
  for (size_t i = 0; i < covariance.size(); ++i) {
    for (size_t t = 0; t < covariance[i].size(); ++t) places.emplace_back(-covariance[i][t], i, t);
  }
  return FirstOf(std::move(places), WantedOf(covariance, share), covariance);
}

}  // namespace rein::trainer
