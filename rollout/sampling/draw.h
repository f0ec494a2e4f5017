// What goes into and comes out of one draw of tokens, one entry per row of logits.

#pragma once

#include <cstdint>
#include <vector>

namespace rein::rollout {

// Names the random part of a draw; see gumbel_noise.h.
struct NoiseKey {
  uint64_t key = 0;       // of the completion
  uint32_t position = 0;  // of the token in the completion
};

// Penalties on tokens that stand in the prompt or were written, as transformers and vLLM define them: first the
// repetition penalty (arXiv 1909.05858) divides positive logits of tokens seen at all and multiplies others, then the
// other two are taken from logits of tokens that were written, once, and once for each time.
struct Penalties {
  double repetition = 1.0;
  double presence = 0.0;
  double frequency = 0.0;

  bool any() const { return repetition != 1 || presence != 0 || frequency != 0; }
};

// How one row is drawn: penalties first, then temperature, top_k, top_p of what is left, min_p.
struct RowDraw {
  double temperature = 1.0;  // 0: the likeliest token, the lowest id among equals
  uint32_t top_k = 0;        // 0: all
  double top_p = 1.0;
  double min_p = 0.0;
  NoiseKey noise;
  std::vector<uint32_t> banned;  // never drawn
  bool untempered = false;       // wants the untempered log-prob too
  Penalties penalties;
  std::vector<uint32_t> seen;  // only with penalties: the prompt, then what was written
  size_t prompt_tokens = 0;    // how many of `seen` are the prompt
};

// Whether a row leaves out tokens by its settings.
inline bool HasFilters(const RowDraw& row) {
  return row.temperature > 0 && (row.top_k > 0 || row.top_p < 1 || row.min_p > 0);
}

struct Draws {
  std::vector<uint32_t> token;
  // Under the distribution that was drawn from, renormalised after filters. Greedy rows: under the
  // untempered distribution, penalised and without the banned tokens, since the greedy one says nothing.
  std::vector<float> logprob;
  // Under softmax(logits), nothing penalised, filtered or banned; empty when no row wants it.
  std::vector<float> untempered_logprob;
};

}  // namespace rein::rollout
