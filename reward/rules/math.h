// MathAnswer: 1 when the final answer of a completion means the same as the right one.
//
// Where it stands: AnswerPlace of proto/rein/v1/job.proto. What "the same" is:
// reward/math/equivalence.h.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "rein/v1/job.pb.h"
#include "reward/math/equivalence.h"

namespace rein::reward {

struct MathOptions {
  v1::AnswerPlace place = v1::ANSWER_PLACE_ANY;
  std::vector<std::string> markers;  // lower case
  math::EquivalenceOptions same;
};

// INVALID_ARGUMENT for an empty answer. A boxed `answer` counts by its content, a GSM8K one by what
// follows its ####.
absl::StatusOr<double> MathAnswer(absl::string_view completion, absl::string_view answer,
                                  const MathOptions& options);

}  // namespace rein::reward
