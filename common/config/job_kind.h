// What kind of job a JobConfig is, and the block of its policy-gradient algorithm whichever preset it uses.

#pragma once

#include <string>

#include "rein/v1/job.pb.h"

namespace rein::config {

// The key of the kind, such as "grpo"; "" when there is none.
std::string KindOf(const v1::JobConfig& job);

// The block of grpo, dapo, gspo ...; null for a job of another kind.
const v1::GrpoConfig* PolicyGradientOf(const v1::JobConfig& job);
v1::GrpoConfig* PolicyGradientOf(v1::JobConfig& job);

}  // namespace rein::config
