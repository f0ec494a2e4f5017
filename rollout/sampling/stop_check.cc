#include "rollout/sampling/stop_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::rollout {

absl::StatusOr<StopCheck> StopCheck::Create(const SamplingSettings& settings,
                                            const text::ModelText& text, uint32_t prompt_tokens,
                                            uint32_t max_length) {
  if (prompt_tokens == 0) return absl::InvalidArgumentError("the prompt has no token");
  if (prompt_tokens >= max_length) {
    return absl::InvalidArgumentError(
        absl::StrCat("the prompt has ", prompt_tokens, " tokens, want at most ", max_length - 1,
                     ": the model takes ", max_length, " with the completion"));
  }
  StopCheck check;
  check.limit_ = std::min(settings.max_tokens, max_length - prompt_tokens);
  check.min_tokens_ = settings.min_tokens;
  if (settings.ignore_eos) return check;
  check.stop_token_ids_ =
      settings.stop_token_ids.empty() ? text.stop_token_ids() : settings.stop_token_ids;
  std::sort(check.stop_token_ids_.begin(), check.stop_token_ids_.end());
  check.stop_strings_ = settings.stop_strings;
  if (!check.stop_strings_.empty()) {
    if (!text.has_tokenizer()) {
      return absl::FailedPreconditionError(
          "stop strings need the tokenizer, which this model has not: use stop token ids");
    }
    check.decoder_.emplace(*text.tokenizer());
    for (const std::string& stop : check.stop_strings_) {
      check.longest_stop_ = std::max(check.longest_stop_, stop.size());
    }
  }
  return check;
}

absl::StatusOr<std::optional<FinishReason>> StopCheck::Append(uint32_t token) {
  ++tokens_;
  bool stop = std::binary_search(stop_token_ids_.begin(), stop_token_ids_.end(), token);
  if (decoder_.has_value()) {
    REIN_ASSIGN_OR_RETURN(std::string piece, decoder_->Append(token));
    tail_ += piece;
    if (tokens_ >= min_tokens_) {
      stop |= std::any_of(stop_strings_.begin(), stop_strings_.end(), [&](const std::string& text) {
        return tail_.find(text) != std::string::npos;
      });
    }
    if (tail_.size() >= longest_stop_) tail_.erase(0, tail_.size() - longest_stop_ + 1);
  }
  if (stop) return std::optional<FinishReason>(FinishReason::kStop);
  if (tokens_ >= limit_) return std::optional<FinishReason>(FinishReason::kLength);
  return std::optional<FinishReason>();
}

const std::vector<uint32_t>& StopCheck::banned(uint32_t index) const {
  static const auto& none = *new std::vector<uint32_t>();
  return index < min_tokens_ ? stop_token_ids_ : none;
}

}  // namespace rein::rollout
