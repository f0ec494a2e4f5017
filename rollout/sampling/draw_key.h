// DrawKey names everything that a random draw may depend on, except its position in the completion:
// not the batch, not the order of arrival.

#pragma once

#include <cstdint>

namespace rein::rollout {

struct DrawKey {
  uint64_t seed = 0;
  uint64_t data_epoch = 0;
  uint64_t prompt = 0;
  uint64_t attempt = 0;
  uint32_t sibling = 0;
  uint32_t turn = 0;
};

// The Philox key of all draws of one completion.
uint64_t PhiloxKey(const DrawKey& key);

}  // namespace rein::rollout
