// What of a model a job trains, from its model block; every role that holds the policy must agree on it.

#pragma once

#include "common/models/lora.h"
#include "rein/v1/job.pb.h"

namespace rein::services {

models::TrainedChoice TrainedChoiceOf(const v1::ModelConfig& model);

}  // namespace rein::services
