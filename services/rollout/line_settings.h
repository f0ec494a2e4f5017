// SettingsOfLine reads the sampling settings that a line of JSON may carry.

#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "rein/v1/policy.pb.h"

namespace rein::services {

struct LineSettings {
  v1::SamplingParams sampling;
  uint32_t completions = 1;
};

// `defaults`, replaced by the line's temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
// frequency_penalty, max_tokens, min_tokens,
// seed, ignore_eos, stop (a text or a list), stop_token_ids and n. INVALID_ARGUMENT names the key.
absl::StatusOr<LineSettings> SettingsOfLine(const nlohmann::json& line,
                                            const LineSettings& defaults);

}  // namespace rein::services
