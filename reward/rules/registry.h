// MakeRule builds the rule that a job's YAML asks for.

#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "rein/v1/job.pb.h"
#include "reward/rules/rule.h"

namespace rein::reward {

// Longest completion that is scored; a longer one is an error of its rollout.
inline constexpr size_t kMaxCompletionBytes = 1 << 20;

// The rule's `name`, else its kind: "exact_match", "numeric", ...
std::string RuleName(const v1::RewardConfig& config);

// INVALID_ARGUMENT for a pattern that RE2 refuses or settings that contradict each other.
// UNIMPLEMENTED for `remote`, which is no rule of this process: see reward/scoring.
absl::StatusOr<Rule> MakeRule(const v1::RewardConfig& config);

}  // namespace rein::reward
