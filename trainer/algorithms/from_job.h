// Chooses the Algorithm that a job's YAML names.

#pragma once

#include "absl/status/statusor.h"
#include "rein/v1/job.pb.h"
#include "trainer/algorithms/algorithm.h"

namespace rein::trainer {

// `job` is resolved: its defaults are filled in. INVALID_ARGUMENT for a kind that trains nothing.
absl::StatusOr<Algorithm> AlgorithmFromJob(const v1::JobConfig& job);

}  // namespace rein::trainer
