// What of a model a job trains, from its model block; every role that holds the policy must agree on it.

#pragma once

#include <string>

#include "common/models/lora.h"
#include "rein/v1/job.pb.h"

namespace rein::services {

models::LoraChoice LoraChoiceOf(const v1::LoraConfig& lora);
models::TrainedChoice TrainedChoiceOf(const v1::ModelConfig& model);

// The folder of weights, or else the config of random ones.
const std::string& ModelPathOf(const v1::ModelConfig& model);

// Whether the kernels of this process keep bits from now on; see kernels/exactness.h.
void KeepBitsAs(const v1::ModelConfig& model);

}  // namespace rein::services
