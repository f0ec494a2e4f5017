// What the routers of one training pass did, and the losses that keep them even and small.
//
// T packed tokens, L layers, E experts, K chosen ones, S sequences.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace rein::nn {

// One for a pass; its routers write into it until Close(), so that what the backward pass runs again is not counted. Gradients
// of its losses, times `share`, enter at the routers by themselves.
struct RouterRecord {
  enum class Level { kBatch, kSequence, kGlobal };

  // Weight of the auxiliary loss; 0: none.
  //   kBatch     that of Switch Transformers (arXiv 2101.03961, section 2.2), over all layers of the pass as `transformers` has it:
  //              E * sum over experts of (choices of it / rows) * (its mean probability); rows are tokens times layers.
  //   kGlobal    the same with choices / rows of all that an optimizer step sees (arXiv 2501.11873): even_E.
  //   kSequence  of each layer, the mean over sequences of sum over experts of (its choices * E / (K tokens)) * (its mean
  //              probability) (arXiv 2412.19437, equation 17); layers are added up. Sigmoid scores are divided by their sum.
  double balance = 0;
  Level level = Level::kBatch;
  double z_loss = 0;    // weight of the mean over tokens of log^2 sum exp(logits), layers added up (arXiv 2202.08906)
  double capacity = 0;  // above 0: an expert takes at most ceil(capacity * T K / E) rows, the first ones
  double share = 1;     // the part that this pass is of what one optimizer step sees
  at::Tensor sequence_T;      // kSequence: int64, which sequence a token is of, from 0
  at::Tensor even_E;          // kGlobal: fp32 choices / rows
  // int64 [T, routers, K]: the experts that tokens go to in place of a router's own choice, whose weights are still its own;
  // below 0: its own. Undefined: all of them are (arXiv 2510.11370).
  at::Tensor replay_TRK;

  at::Tensor choices_LE;       // fp32: how often each layer chose each expert; defined by the first router
  at::Tensor probability_E;    // fp32, summed over rows
  at::Tensor entropy;          // fp32: of the probabilities, nats, summed over rows
  at::Tensor sequence_loss;    // fp32: kSequence's, without its weight
  at::Tensor log_partition;    // fp32: log^2 sum exp(logits), summed over rows
  at::Tensor dropped;          // fp32: choices beyond an expert's capacity
  at::Tensor replayed, differing;  // fp32: choices that were replayed, and those of them that the router would not have made
  int64_t rows = 0;
  int64_t layers = 0;          // that have a router
  bool closed = false;

  void Close() { closed = true; }
  // The auxiliary loss and the z-loss, without `share`.
  double BalanceLoss() const;
  double ZLoss() const;
};

// Notes what a router of `layer` (of `layers`) did, and returns its logits_TE, through which its losses flow back; `sigmoid`:
// scores are sigmoids. A null record changes nothing.
at::Tensor Recorded(const at::Tensor& logits_TE, const at::Tensor& expert_TK, bool sigmoid, int64_t layer, int64_t layers,
                    const std::shared_ptr<RouterRecord>& record);

}  // namespace rein::nn
