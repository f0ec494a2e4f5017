// SamplingSettings says how one request wants its tokens drawn, checked and with defaults filled
// in.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "rein/v1/policy.pb.h"
#include "rollout/sampling/draw.h"

namespace rein::rollout {

struct SamplingSettings {
  // Divides the logits; 0: the likeliest token (greedy).
  double temperature = 1.0;
  // Only the k likeliest tokens; 0: all.
  uint32_t top_k = 0;
  // Only the smallest set of likeliest tokens with at least this mass, in (0, 1].
  double top_p = 1.0;
  // Only tokens at least this likely, relative to the likeliest; in [0, 1).
  double min_p = 0.0;
  uint32_t max_tokens = 16;
  // Stop tokens are not drawn before.
  uint32_t min_tokens = 0;
  // The token that ends a completion is kept; empty: the model's own.
  std::vector<uint32_t> stop_token_ids;
  std::vector<std::string> stop_strings;
  // Only max_tokens ends a completion.
  bool ignore_eos = false;
  uint64_t seed = 0;
  bool untempered_logprobs = false;
  Penalties penalties;
};

inline constexpr size_t kMaxStopStrings = 64;
inline constexpr size_t kMaxStopStringBytes = 1024;

// INVALID_ARGUMENT names every field that is out of range, with its value and the wanted one.
absl::StatusOr<SamplingSettings> MakeSettings(const v1::SamplingParams& params);

}  // namespace rein::rollout
