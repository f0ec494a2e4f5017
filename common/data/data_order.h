// DataOrder says which prompt comes when: a shuffle of the file for each data epoch, drawn from
// (seed, data_epoch) alone, so that a cursor of two numbers is all that a restart needs.
//
//   DataOrder order(dataset->size(), /*shuffle=*/true, seed);
//   for (Cursor cursor = resumed; !done; cursor = order.Next(cursor)) Use(order.PromptAt(cursor));
//
// Keeps the permutation of one epoch (8 bytes per prompt). Not thread-safe.

#pragma once

#include <cstdint>
#include <vector>

namespace rein::data {

// A place in the endless sequence of prompts.
struct Cursor {
  // Pass over the data, from 0.
  uint64_t data_epoch = 0;
  // Prompts of this pass that were taken; below the size of the data.
  uint64_t position = 0;

  bool operator==(const Cursor&) const = default;
};

// The numbers 0 to size - 1 in an order drawn from (seed, data_epoch): Fisher-Yates, each swap
// keyed by its own place.
std::vector<uint64_t> Permutation(uint64_t size, uint64_t seed, uint64_t data_epoch);

class DataOrder {
 public:
  // `size` is at least 1. Without `shuffle` the order is that of the file, in every epoch.
  DataOrder(uint64_t size, bool shuffle, uint64_t seed)
      : size_(size), shuffle_(shuffle), seed_(seed) {}

  // Index of the prompt at a cursor; its position must be below the size.
  uint64_t PromptAt(const Cursor& cursor);
  // The place after this one.
  Cursor Next(const Cursor& cursor) const;

 private:
  uint64_t size_;
  bool shuffle_;
  uint64_t seed_;
  uint64_t kept_epoch_ = 0;
  std::vector<uint64_t> kept_;  // empty: none
};

}  // namespace rein::data
