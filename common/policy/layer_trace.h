// LayerTrace is what a forward pass computed for one sequence, layer by layer, as prints that can be sent and
// compared: where two passes of the same tokens under the same weights first differ is where to look.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "common/policy/sequence_scorer.h"

namespace rein::policy {

// T tokens. Stages: the embeddings, each layer, and last the normed states that the head reads.
struct LayerTrace {
  std::vector<std::vector<uint64_t>> digest;  // [stage][T]: of the bits of a token's state
  std::vector<std::vector<float>> norm;       // [stage][T]: L2, of the state as fp32
  std::vector<float> logprob;                 // T - prefix: log softmax(logits / temperature) at each token behind the prefix

  size_t stages() const { return digest.size(); }
};

// Takes down what the decoder computes in this thread while it lives.
class LayerRecorder {
 public:
  explicit LayerRecorder(const models::DecoderSpec& spec);
  ~LayerRecorder();

  // The next pass computes the sequence's next `tokens` tokens; rows behind them are padding.
  void Expect(int64_t tokens);
  // All but the log-probs.
  LayerTrace Take();
  // [T, D], of the last stage, on the device.
  at::Tensor LastStates() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The way of trainer and reference: the whole sequence in one pass. Errors as ScoreSequences().
absl::StatusOr<LayerTrace> TraceAtOnce(const models::Decoder& decoder, const ScoredSequence& sequence,
                                       double temperature);

}  // namespace rein::policy
