#include "common/data/data_order.h"

#include <numeric>
#include <utility>

#include "common/random/philox.h"

namespace rein::data {
namespace {

// Sets these draws apart from all others that are keyed by the job's seed.
constexpr uint64_t kShuffleKey = 0x73687566666c65;

// In [0, bound): the high word of a 64 x 64 bit product; its bias is below bound / 2^64.
uint64_t Below(uint64_t bound, uint64_t draw) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(draw) * bound) >> 64);
}

}  // namespace

std::vector<uint64_t> Permutation(uint64_t size, uint64_t seed, uint64_t data_epoch) {
  uint64_t key = random::DeriveKey(random::DeriveKey(seed, kShuffleKey), data_epoch);
  std::vector<uint64_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  for (uint64_t i = size; i > 1; --i) {
    random::PhiloxWords words =
        random::Philox({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), 0, 0}, key);
    std::swap(order[i - 1], order[Below(i, random::Low64(words))]);
  }
  return order;
}

uint64_t DataOrder::PromptAt(const Cursor& cursor) {
  if (!shuffle_) return cursor.position;
  if (kept_.empty() || kept_epoch_ != cursor.data_epoch) {
    kept_ = Permutation(size_, seed_, cursor.data_epoch);
    kept_epoch_ = cursor.data_epoch;
  }
  return kept_[cursor.position];
}

Cursor DataOrder::Next(const Cursor& cursor) const {
  if (cursor.position + 1 < size_) return {cursor.data_epoch, cursor.position + 1};
  return {cursor.data_epoch + 1, 0};
}

}  // namespace rein::data
