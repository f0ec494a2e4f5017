// RemoteLoss asks a user's LossService for the derivatives of a minibatch.

#pragma once

#include <functional>
#include <string>

#include "trainer/algorithms/algorithm.h"

namespace rein::services {

// Blocks until the answer or `settings.timeout_seconds`. A service that is away is tried again until then: UNAVAILABLE.
// INVALID_ARGUMENT: the settings do not suit it. ABORTED, so that the Update is skipped with the reason: no answer in
// time, or any other error. Messages name the address.
std::function<absl::StatusOr<trainer::OutsideLoss>(const trainer::OutsideBatch&)> RemoteLoss(
    const std::string& job, const trainer::OutsideLossSettings& settings);

}  // namespace rein::services
