// GumbelNoise gives the random part of a draw over the vocabulary: the token with the largest
// logit + noise is a draw from softmax(logits) (Gumbel, 1954; Maddison et al., arXiv 1411.0030).
//
// The noise of vocabulary index v at a position is a pure function of (key, position, v): word
// (v / 8) % 4 of Philox at counter {position, 8 * (v / 32) + v % 8, 0, 0}. So neither the batch nor
// the device decides a draw.

#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "rollout/sampling/draw.h"

namespace rein::rollout {

// fp32 [B, V] on `device`; rows without key (nullptr) are 0.
at::Tensor GumbelNoise(const std::vector<const NoiseKey*>& keys, int64_t vocabulary,
                       at::Device device);

// The same by tensor operations alone, which is how other devices than the CPU get it.
at::Tensor GumbelNoiseByTensors(const std::vector<const NoiseKey*>& keys, int64_t vocabulary,
                                at::Device device);

}  // namespace rein::rollout
