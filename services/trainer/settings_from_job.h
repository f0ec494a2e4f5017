// Reads a resolved job's trainer block.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "rein/v1/job.pb.h"
#include "trainer/policy_trainer.h"

namespace rein::services {

// `device` is cpu or cuda:N. INVALID_ARGUMENT when the job names no model folder.
absl::StatusOr<trainer::TrainerSettings> SettingsFromJob(const v1::JobConfig& job,
                                                         const std::string& device);

}  // namespace rein::services
