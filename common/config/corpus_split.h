// The shares of a corpus that are trained on and held out, as a job writes them: "969,30,1".

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "rein/v1/job.pb.h"

namespace rein::config {

// One to three shares that add up to 1: of training, held out, left out. INVALID_ARGUMENT when a number is wrong or
// nothing is left to train on.
absl::StatusOr<std::vector<double>> SplitShares(const std::string& split);

// Whether a pretrain job holds a share of its corpus out.
bool HoldsOut(const v1::JobConfig& job);

}  // namespace rein::config
