// PolicyVersion names one state of the policy's weights; the plain form of rein.v1.PolicyVersion.

#pragma once

#include <cstdint>

namespace rein::rollout {

struct PolicyVersion {
  uint64_t lineage = 0;
  uint64_t number = 0;

  bool operator==(const PolicyVersion&) const = default;
};

}  // namespace rein::rollout
