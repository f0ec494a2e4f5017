// ScoreSequences gives the log-probs of given tokens under a policy, for reference scoring; ScorePlaces what a
// reward model says of whole sequences, or of the steps in them.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"

#include "common/models/decoder.h"

namespace rein::policy {

struct ScoredSequence {
  std::vector<uint32_t> tokens;  // prompt first
  uint32_t prefix = 1;           // only context, at the front; 1 to tokens.size()
};

// INVALID_ARGUMENT when it is empty, too long, or holds an id outside the vocabulary.
absl::Status CheckSequence(const models::DecoderSpec& spec, const ScoredSequence& sequence);

// For each sequence the natural logarithm of softmax(logits / temperature) at each token after the
// prefix. On a CPU each sequence is computed on its own, in a number of rows that keeps its bits
// whatever stands beside it; on a GPU many are packed. INVALID_ARGUMENT names the first sequence
// that is empty, too long, or holds an id outside the vocabulary.
absl::StatusOr<std::vector<std::vector<float>>> ScoreSequences(
    const models::Decoder& decoder, const std::vector<ScoredSequence>& sequences,
    double temperature);

// Log-probs of targets [N] at hidden states [N, D], as a head gives them.
using HeadSlice = std::function<at::Tensor(const at::Tensor& hidden_ND, const at::Tensor& target_N)>;
// Calls `head` for rows `where` of hidden_TD and their targets, in slices of a number of rows that keeps their bits.
std::vector<float> InHeadSlices(const at::Tensor& hidden_TD, std::vector<int64_t> where, std::vector<int64_t> target,
                                const HeadSlice& head);

// The likeliest tokens at each scored place of one sequence.
struct TopTokens {
  std::vector<uint32_t> ids;    // k of each, the likeliest first
  std::vector<float> logprobs;  // of softmax(logits / temperature) over the whole vocabulary
};

// For each sequence the `k` likeliest tokens (all, where the vocabulary is smaller) at each token after the prefix.
absl::StatusOr<std::vector<TopTokens>> ScoreTopTokens(const models::Decoder& decoder,
                                                      const std::vector<ScoredSequence>& sequences,
                                                      double temperature, int64_t k);

// Of a model with a scalar head (else INVALID_ARGUMENT): its scores at the tokens `places[s]` of each sequence, such as
// the last one, which ...ForSequenceClassification reads. The prefixes do not matter; packing, padding and errors are as
// above.
absl::StatusOr<std::vector<std::vector<float>>> ScorePlaces(const models::Decoder& decoder,
                                                            const std::vector<ScoredSequence>& sequences,
                                                            const std::vector<std::vector<uint32_t>>& places);

}  // namespace rein::policy
