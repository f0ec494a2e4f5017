#include "common/text/stream_decoder.h"

#include "common/status/status_macros.h"

namespace rein::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

absl::StatusOr<std::string> StreamDecoder::Append(uint32_t id) {
  window_.push_back(id);
  return Emit(/*even_if_incomplete=*/window_.size() - context_ >= kMaxHeldTokens);
}

absl::StatusOr<std::string> StreamDecoder::Flush() { return Emit(/*even_if_incomplete=*/true); }

// The tokens emitted last are decoded again before the new ones: what a token reads as may depend
// on its left neighbour (a leading space, say), but not on anything further away.
absl::StatusOr<std::string> StreamDecoder::Emit(bool even_if_incomplete) {
  std::vector<uint32_t> emitted(window_.begin(), window_.begin() + context_);
  REIN_ASSIGN_OR_RETURN(std::string before,
                        tokenizer_->Decode(emitted, /*skip_special_tokens=*/true));
  REIN_ASSIGN_OR_RETURN(std::string after,
                        tokenizer_->Decode(window_, /*skip_special_tokens=*/true));
  bool incomplete = after.size() >= kReplacement.size() &&
                    after.compare(after.size() - kReplacement.size(), kReplacement.size(),
                                  kReplacement.data()) == 0;
  if (after.size() <= before.size() || (incomplete && !even_if_incomplete)) return std::string();
  std::string piece = after.substr(before.size());
  window_.erase(window_.begin(), window_.begin() + context_);
  context_ = window_.size();
  return piece;
}

}  // namespace rein::text
