// CheckPolicyGradient finds what contradicts itself in the block of a policy-gradient algorithm, and keys that
// the chosen advantage, ratio, objective or penalty does not use.

#pragma once

#include <functional>
#include <string>

#include "rein/v1/job.pb.h"

namespace rein::config {

// `given(key)`: the user wrote this key of the block, such as "kl.estimator". `add(key, text)` reports.
void CheckPolicyGradient(const v1::JobConfig& job, const v1::GrpoConfig& config,
                         const std::function<bool(const std::string&)>& given,
                         const std::function<void(const std::string&, const std::string&)>& add);

}  // namespace rein::config
