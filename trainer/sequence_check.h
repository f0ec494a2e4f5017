// CheckSequences() refuses sequences that a model cannot take or a loss cannot use, before anything
// changes.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

#include "trainer/algorithms/algorithm.h"
#include "trainer/training_sequence.h"

namespace rein::trainer {

struct SequenceLimits {
  int64_t max_length;  // tokens
  int64_t vocab_size;
  int64_t choice_width = 0, experts = 0;  // of a token's replayed choices; 0: none are
};

// INVALID_ARGUMENT names the first sequence that does not fit and why. `algorithm` is the one whose
// loss will read the sequences; null when they are only scored.
absl::Status CheckSequences(const std::vector<TrainingSequence>& sequences,
                            const SequenceLimits& limits, const Algorithm* algorithm);

}  // namespace rein::trainer
