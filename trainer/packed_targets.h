// Packs sequences into one row of tokens and computes the log-probs of their targets. Neighbours with the same
// prompt (what comes before the first target) are packed behind one copy of it, which is computed once.
//
//   PackedTargets packed = PackTargets(sequences, members);
//   nn::TokenLogprobs out = ForwardTargets(decoder, packed, temperature, recompute);
//   SplitTargets(out.logprob_N, packed, sequences, members, "policy_logprob", &logprobs);

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include <ATen/core/Tensor.h>

#include "common/models/decoder.h"
#include "common/nn/sequence_view.h"
#include "trainer/training_sequence.h"

namespace rein::trainer {

// The packed tokens of some sequences, and where their targets stand; host side.
struct PackedTargets {
  std::vector<int64_t> token;
  std::vector<nn::Segment> segments;
  std::vector<int64_t> source;      // packed place whose hidden state predicts the target
  std::vector<int64_t> target;      // token ids
  std::vector<int64_t> target_place;  // packed place of the target itself
  std::vector<int64_t> targets_of;  // of each member
  std::vector<int64_t> last;        // packed place of each member's last token
  std::vector<int64_t> choices;     // of each token, `choice_width` experts, below 0 where none are replayed; or empty
};

// How many leading tokens of `next` need not be packed again behind `previous`: its prompt, if it is the other's.
int64_t SharedTokens(const TrainingSequence& previous, const TrainingSequence& next);

// `members` are indices into `sequences`. `share`: one copy of a prompt for neighbours. `choice_width` above 0: with the
// experts of each token, so many of a token.
PackedTargets PackTargets(const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& members, bool share = true, int64_t choice_width = 0);

using Routers = std::shared_ptr<nn::RouterRecord>;

// What a forward pass of training does beside giving log-probs.
struct ForwardExtras {
  Routers routers;              // as in Decoder::Hidden()
  at::Tensor noise_TD;          // added to the embeddings of the packed tokens; undefined: none
  bool log_partition = false;
  at::Tensor candidate_NK;      // ids whose log-probs are wanted beside the target's; undefined: none
  bool mtp = false;             // multi-token prediction; not of packs that share prompts
};

struct TargetFigures : nn::TokenLogprobs {
  at::Tensor log_partition_N;  // log of the sum of exp(logits / temperature); undefined unless asked for
  at::Tensor candidate_NK;     // log-probs of the candidates; undefined unless asked for
  // Of each layer of multi-token prediction: log-probs of those targets that stand far enough from the front.
  struct Ahead {
    at::Tensor logprob_M, target_M;  // target_M int64: which of the N targets
  };
  std::vector<Ahead> ahead;
};

// The figures of every target, in packed order. Throws as LibTorch does; see CatchTorch().
TargetFigures ForwardTargets(const models::Decoder& decoder, const PackedTargets& packed,
                             double temperature, bool recompute, const ForwardExtras& extras = {});

// Of a model with a scalar head: the scores at the packed places `at`, such as packed.source (a critic's values),
// packed.last or packed.target_place (those of whole sequences and of steps).
at::Tensor ScoresAt(const models::Decoder& decoder, const PackedTargets& packed, const std::vector<int64_t>& at,
                    bool recompute, const Routers& routers = nullptr);

// Cuts [N] figures of targets into those of each member, at (*out)[member]; null: only checks. ABORTED
// names the first that is not finite, as `what`.
absl::Status SplitTargets(const at::Tensor& figure_N, const PackedTargets& packed,
                          const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& members, const std::string& what,
                          std::vector<std::vector<float>>* out);

}  // namespace rein::trainer
