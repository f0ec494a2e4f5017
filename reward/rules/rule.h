// Rule scores one completion; every file of this folder makes one kind of them.

#pragma once

#include <functional>

#include "absl/status/statusor.h"

#include "rein/v1/reward.pb.h"

namespace rein::reward {

// True once the rule's time is over; a rule that loops asks it and returns DEADLINE_EXCEEDED.
using Expired = std::function<bool()>;

// Pure and thread-safe. An error costs this completion its score, and no other.
using Rule = std::function<absl::StatusOr<double>(const v1::RewardItem& item, const Expired&)>;

}  // namespace rein::reward
