// StopCheck decides after each token whether a completion is over.
//
// A stop string is looked for in the decoded text, special tokens skipped; the completion ends at
// the token that completes it. Not thread-safe: one for each completion.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/text/model_text.h"
#include "common/text/stream_decoder.h"
#include "rollout/sampling/settings.h"

namespace rein::rollout {

enum class FinishReason { kStop, kLength, kAbort };

class StopCheck {
 public:
  // `text` gives the model's own stop tokens, and must outlive the check. `max_length` is the
  // longest sequence that the model takes, prompt included; a prompt that fills it is
  // INVALID_ARGUMENT. FAILED_PRECONDITION for stop strings without a tokenizer.
  static absl::StatusOr<StopCheck> Create(const SamplingSettings& settings,
                                          const text::ModelText& text, uint32_t prompt_tokens,
                                          uint32_t max_length);

  // Why the completion ends with this token, or nothing.
  absl::StatusOr<std::optional<FinishReason>> Append(uint32_t token);

  // Tokens that must not be drawn as the completion's token `index`: the stop tokens below min_tokens.
  const std::vector<uint32_t>& banned(uint32_t index) const;

  // Tokens of the longest completion.
  uint32_t limit() const { return limit_; }

 private:
  StopCheck() = default;

  std::vector<uint32_t> stop_token_ids_;  // ascending
  std::vector<std::string> stop_strings_;
  std::optional<text::StreamDecoder> decoder_;  // only with stop strings
  std::string tail_;                            // the text where a stop string may have begun
  size_t longest_stop_ = 0;
  uint32_t limit_ = 0;
  uint32_t min_tokens_ = 0;
  uint32_t tokens_ = 0;
};

}  // namespace rein::rollout
