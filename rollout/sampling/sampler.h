// Sample draws one token per row of logits, and gives the log-probs of what it drew.
//
// B rows, V vocabulary. A row's draw depends on its own logits and settings only.

#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "rollout/sampling/gumbel_noise.h"

namespace rein::rollout {

// How one row is drawn: temperature first, then top_k, then top_p of what is left, then min_p.
struct RowDraw {
  double temperature = 1.0;  // 0: the likeliest token, the lowest id among equals
  uint32_t top_k = 0;        // 0: all
  double top_p = 1.0;
  double min_p = 0.0;
  NoiseKey noise;
  std::vector<uint32_t> banned;  // never drawn
  bool untempered = false;       // wants the untempered log-prob too
};

struct Draws {
  std::vector<uint32_t> token;
  // Under the distribution that was drawn from, renormalised after filters. Greedy rows: under the
  // untempered distribution without the banned tokens, since the greedy one says nothing.
  std::vector<float> logprob;
  // Under softmax(logits), nothing filtered or banned; empty when no row wants it.
  std::vector<float> untempered_logprob;
};

// logits_BV: fp32 [B, V] with B = rows.size(), on any device; not changed. Every row must keep at
// least one token that is not banned.
Draws Sample(const at::Tensor& logits_BV, const std::vector<RowDraw>& rows);

}  // namespace rein::rollout
