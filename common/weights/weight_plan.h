// WeightPlan lists what one side of a weight sync will send; the other side checks it against its own
// registry before a byte moves.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/weights/registry.h"

namespace rein::weights {

struct PlannedParameter {
  std::string name;
  std::vector<int64_t> shape;
  std::string dtype;  // "bfloat16" or "float32"
  uint64_t offset_bytes = 0;
  uint64_t size_bytes = 0;
  bool operator==(const PlannedParameter&) const = default;
};

struct WeightPlan {
  std::vector<PlannedParameter> parameters;  // in arena order
  uint64_t arena_bytes = 0;
  // Of the weights that are not sent, because training never changes them (see Registry::trained_begin); 0: there are
  // none. Both sides must have loaded the same.
  uint64_t frozen_digest = 0;
};

// The plan of the trained part of a compute arena whose elements are `dtype` ("bfloat16" or "float32"); offsets count
// from that part's first byte. Without a frozen digest.
WeightPlan PlanOf(const Registry& registry, const std::string& dtype);

// OK when both plans are the same; else INVALID_ARGUMENT that lists every parameter that only one side
// has, or that has another shape, dtype or place, or says that the frozen weights differ.
absl::Status CheckPlan(const WeightPlan& sent, const WeightPlan& own);

}  // namespace rein::weights
