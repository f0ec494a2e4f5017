// CheckRewards finds what is wrong with a job's rewards before any service is asked.

#pragma once

#include <functional>
#include <string>

#include "rein/v1/job.pb.h"

namespace rein::config {

// `add` is given the key (rewards.0.regex.pattern) and what is wrong with it. `job` has its
// defaults already.
void CheckRewards(const v1::JobConfig& job,
                  const std::function<void(const std::string& key, const std::string& text)>& add);

}  // namespace rein::config
