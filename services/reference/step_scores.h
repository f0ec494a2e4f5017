// How the steps of a completion are found, and what their scores come to; see StepScores in job.proto.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "rein/v1/job.pb.h"
#include "rein/v1/policy.pb.h"

namespace rein::services {

struct StepText {
  std::string_view text;  // without the separator
  size_t end = 0;         // bytes of the completion up to its end
};

// The pieces between separators, those of white space alone left out; never none: a completion without any is one step.
std::vector<StepText> SplitSteps(std::string_view completion, std::string_view separator);

// `scores` of the head, one or more; `ends` as in StepText. Where the score is a sum or mean, each step has its part.
v1::RewardResult ResultOfSteps(const std::vector<float>& scores, const std::vector<uint32_t>& ends,
                               v1::StepReduction reduction);

}  // namespace rein::services
