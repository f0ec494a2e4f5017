// Packs sequences into one row of tokens and computes the log-probs of their targets.
//
//   PackedTargets packed = PackTargets(sequences, members);
//   nn::TokenLogprobs out = ForwardTargets(decoder, packed, temperature, recompute);
//   SplitLogprobs(out.logprob_N, packed, sequences, members, &logprobs);

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include <ATen/core/Tensor.h>

#include "common/models/decoder.h"
#include "trainer/training_sequence.h"

namespace rein::trainer {

// The packed tokens of some sequences, and where their targets stand; host side.
struct PackedTargets {
  std::vector<int64_t> token, lengths;
  std::vector<int64_t> source;      // packed place whose hidden state predicts the target
  std::vector<int64_t> target;      // token ids
  std::vector<int64_t> targets_of;  // of each member
};

// `members` are indices into `sequences`.
PackedTargets PackTargets(const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& members);

// The figures of every target, in packed order. Throws as LibTorch does; see CatchTorch().
nn::TokenLogprobs ForwardTargets(const models::Decoder& decoder, const PackedTargets& packed,
                                 double temperature, bool recompute);

// Cuts [N] log-probs into those of each member, at (*logprobs)[member]; null: only checks. ABORTED
// names the first that is not finite.
absl::Status SplitLogprobs(const at::Tensor& logprob_N, const PackedTargets& packed,
                           const std::vector<TrainingSequence>& sequences,
                           const std::vector<size_t>& members,
                           std::vector<std::vector<float>>* logprobs);

}  // namespace rein::trainer
