// Repetition: -(1 - different n-grams / all n-grams), 0 without repetition and towards -1.
//
// `get_repetition_penalty_reward` of Open-R1 with max_penalty -1 (after arXiv 2502.03373,
// appendix).

#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"

namespace rein::reward {

// Over words between ASCII white space, letter case of ASCII ignored. Fewer than `ngram` words: 0.
double WordRepetition(absl::string_view text, uint32_t ngram);

double TokenRepetition(const std::vector<uint32_t>& token_ids, uint32_t ngram);

}  // namespace rein::reward
