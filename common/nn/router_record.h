// What the routers of one training pass did, and the loss that keeps a model's experts evenly busy.
//
// L layers, E experts, K chosen ones.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace rein::nn {

// One for a pass; its routers write into it until Close(), so that what the backward pass runs again is not counted.
struct RouterRecord {
  // The auxiliary loss of Switch Transformers (arXiv 2101.03961, section 2.2), over all layers of the pass as
  // `transformers` has it: balance * E * sum over experts of (choices of it / rows) * (its mean probability), where rows
  // are tokens times layers. Its gradient, times `share`, enters at the routers by itself. `share` is the part that this
  // pass is of what one optimizer step sees. 0: none.
  double balance = 0;
  double share = 1;

  at::Tensor choices_LE;       // fp32: how often each layer chose each expert; defined by the first router
  at::Tensor probability_E;    // fp32, summed over rows
  at::Tensor entropy;          // fp32: of the probabilities, nats, summed over rows
  int64_t rows = 0;
  bool closed = false;

  void Close() { closed = true; }
  // The auxiliary loss, without `share`.
  double BalanceLoss() const;
};

// Notes what a router of `layer` (of `layers`) did, and returns its logits_TE, through which the auxiliary loss flows back.
// A null record changes nothing.
at::Tensor Recorded(const at::Tensor& logits_TE, const at::Tensor& expert_TK, int64_t layer, int64_t layers,
                    const std::shared_ptr<RouterRecord>& record);

}  // namespace rein::nn
