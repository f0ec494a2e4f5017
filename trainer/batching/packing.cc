#include "trainer/batching/packing.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace rein::trainer {

std::vector<std::vector<size_t>> PackMicrobatches(const std::vector<int64_t>& length,
                                                  const std::vector<int64_t>& shared,
                                                  int64_t budget_tokens) {
  std::vector<std::vector<size_t>> microbatches;
  int64_t used = 0;
  for (size_t i = 0; i < length.size(); ++i) {
    int64_t own = length[i] - shared[i];
    if (microbatches.empty() || used + own > budget_tokens) {
      microbatches.emplace_back();
      used = 0;
      own = length[i];
    }
    microbatches.back().push_back(i);
    used += own;
  }
  return microbatches;
}

std::vector<std::vector<size_t>> PackBestFit(const std::vector<int64_t>& length,
                                             int64_t budget_tokens) {
  std::vector<size_t> order(length.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return length[a] > length[b]; });
  std::vector<std::vector<size_t>> microbatches;
  std::multimap<int64_t, size_t> room;  // tokens that are left -> microbatch
  for (size_t i : order) {
    auto fits = room.lower_bound(length[i]);
    size_t place = microbatches.size();
    int64_t left = budget_tokens - length[i];
    if (fits != room.end()) {
      place = fits->second;
      left = fits->first - length[i];
      room.erase(fits);
    } else {
      microbatches.emplace_back();
    }
    microbatches[place].push_back(i);
    room.emplace(left, place);
  }
  for (auto& microbatch : microbatches) std::sort(microbatch.begin(), microbatch.end());
  std::sort(microbatches.begin(), microbatches.end());
  return microbatches;
}

std::vector<std::vector<size_t>> SplitByGroup(const std::vector<uint32_t>& group, size_t parts) {
  std::map<uint32_t, size_t> place;  // label -> order of first appearance
  for (uint32_t label : group) place.emplace(label, place.size());
  std::vector<std::vector<size_t>> minibatches(std::min(parts, place.size()));
  for (size_t i = 0; i < group.size(); ++i) {
    minibatches[place[group[i]] * minibatches.size() / place.size()].push_back(i);
  }
  return minibatches;
}

std::vector<std::vector<size_t>> BalanceOverRanks(const std::vector<int64_t>& length,
                                                  size_t ranks) {
  std::vector<size_t> order(length.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return length[a] > length[b]; });
  std::vector<std::vector<size_t>> share(ranks);
  std::vector<int64_t> load(ranks, 0);
  for (size_t i : order) {
    const size_t rank = std::min_element(load.begin(), load.end()) - load.begin();
    share[rank].push_back(i);
    load[rank] += length[i];
  }
  for (auto& own : share) std::sort(own.begin(), own.end());
  return share;
}

}  // namespace rein::trainer
