// Holds the generator to its promise: a token that the weights in training have sampled has, by the trainer's own
// forward pass, the log-prob that the generator gave.

#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "common/models/decoder.h"
#include "trainer/packed_targets.h"
#include "trainer/training_sequence.h"

namespace rein::trainer {

// One token on which the two differ beyond the promise.
struct MismatchedToken {
  std::string sequence;  // TrainingSequence::id
  int64_t target = 0;    // which of its targets, from 0
  float behaviour_logprob = 0;
  float policy_logprob = 0;
};

struct MismatchSums {
  double compared = 0;   // tokens
  double beyond = 0;     // of these, that differ by more than is promised
  double largest = 0;    // difference, nats
  std::vector<MismatchedToken> first;  // one, of this rank, if any is beyond
};

inline constexpr double kNoPromise = std::numeric_limits<double>::infinity();

// By how much the two may differ: 0 where a GPU keeps a row's bits (models/row_bits.h), 1e-3 in fp32, whose products
// round by the batch. Infinite where nothing is promised: bf16 through LibTorch's operations.
double PromisedMismatch(const models::Decoder& decoder);

// Compares the targets of those `members` that are on_policy. policy_logprob_N: [N], as packed.
void AddMismatch(const at::Tensor& policy_logprob_N, const PackedTargets& packed,
                 const std::vector<TrainingSequence>& sequences, const std::vector<size_t>& members, double promised,
                 MismatchSums* sums);

}  // namespace rein::trainer
