// Sparse upcycling (arXiv 2212.05055): a dense model becomes a mixture of experts that computes the same, and whose
// experts can then grow apart.

#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace rein::models {

struct UpcycleChoice {
  int64_t experts = 8;
  int64_t chosen = 2;
  uint64_t seed = 1;  // of the routers, normal with deviation 0.02
};

// Makes the folder `to` from the dense `folder`: of Llama and Mistral a Mixtral, of Qwen3 a Qwen3-MoE. Every expert is the
// dense feed-forward layer, and the weights of a token's experts add up to 1. Says what was made. INVALID_ARGUMENT for
// another family or counts that make no sense, ALREADY_EXISTS when `to` exists.
absl::StatusOr<nlohmann::ordered_json> Upcycle(const std::string& folder, const std::string& to, const UpcycleChoice& choice);

}  // namespace rein::models
