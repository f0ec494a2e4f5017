// What holds for every rule of a RewardConfig.

#pragma once

#include "rein/v1/job.pb.h"

namespace rein::config {

// Its own timeout, else that of its kind: a reward model waits for a device.
double TimeoutSeconds(const v1::RewardConfig& reward);

// Whether a reference has to serve reward models for the job.
bool UsesRewardModels(const v1::JobConfig& job);

}  // namespace rein::config
