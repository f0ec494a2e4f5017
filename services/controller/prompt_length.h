// TooLong holds a prompt against what the job and the model allow.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "rein/v1/job.pb.h"
#include "services/controller/prompt_source.h"

namespace rein::services {

// Why line `index` of the training data is too long for the job; empty when it is not.
absl::StatusOr<std::string> TooLong(PromptSource& source, uint64_t index, const v1::JobConfig& job);

}  // namespace rein::services
