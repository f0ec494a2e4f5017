// The sequences of a request as the trainer takes them.

#pragma once

#include <vector>

#include "rein/v1/trainer.pb.h"
#include "trainer/training_sequence.h"

namespace rein::services {

std::vector<trainer::TrainingSequence> SequencesFromProto(
    const google::protobuf::RepeatedPtrField<v1::TrainingSequence>& protos);

}  // namespace rein::services
