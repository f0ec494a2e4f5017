// TraceInSteps computes a sequence the way the engine does, and takes down what it computes.

#pragma once

#include "absl/status/statusor.h"

#include "common/policy/layer_trace.h"
#include "common/policy/policy_slots.h"

namespace rein::rollout {

// The prefix at once, then token by token, over pages of its own and the weights in use, which must stay meanwhile.
// INVALID_ARGUMENT as policy::CheckSequence(); RESOURCE_EXHAUSTED without memory for the pages.
absl::StatusOr<policy::LayerTrace> TraceInSteps(const policy::PolicySlots& slots,
                                                const policy::ScoredSequence& sequence, double temperature);

}  // namespace rein::rollout
