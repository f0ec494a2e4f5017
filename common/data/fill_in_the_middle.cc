#include "common/data/fill_in_the_middle.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/random/philox.h"
#include "common/status/status_macros.h"

namespace rein::data {
namespace {

// Prefix, suffix, middle.
const std::vector<std::vector<std::string>>& KnownTokens() {
  static const auto& known = *new std::vector<std::vector<std::string>>{
      {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},              // StarCoder, SantaCoder
      {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},        // Qwen2.5-Coder, CodeGemma
      {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},        // DeepSeek-Coder
      {"▁<PRE>", "▁<SUF>", "▁<MID>"},                                // CodeLlama
  };
  return known;
}

// Below `bound`, which is far below 2^32.
uint64_t Draw(uint32_t word, uint64_t bound) { return (uint64_t{word} * bound) >> 32; }

double Share(uint32_t word) { return static_cast<double>(word) / 4294967296.0; }

// The byte where character number `n` of `text` begins; its size where it has no more.
size_t ByteOfCharacter(std::string_view text, uint64_t n) {
  size_t at = 0;
  auto continues = [&](size_t i) { return i < text.size() && (static_cast<uint8_t>(text[i]) & 0xc0) == 0x80; };
  for (; n > 0 && at < text.size(); --n) {
    ++at;
    while (continues(at)) ++at;
  }
  return at;
}

}  // namespace

absl::StatusOr<FillInTheMiddle> FillInTheMiddle::Create(const FillInTheMiddleOptions& options,
                                                        const text::ModelText& text) {
  for (const auto& [name, share] : {std::pair{"rate", options.rate}, {"suffix_first", options.suffix_first}}) {
    if (share >= 0 && share <= 1) continue;
    return absl::InvalidArgumentError(absl::StrCat("fill in the middle: ", name, " is ", share, ", want 0 to 1"));
  }
  if (!options.tokens.empty() && options.tokens.size() != 3) {
    return absl::InvalidArgumentError(absl::StrCat("fill in the middle: ", options.tokens.size(),
                                                   " tokens, want three: prefix, suffix, middle"));
  }
  if (!text.has_tokenizer()) return absl::InvalidArgumentError("the model has no tokenizer.json");
  FillInTheMiddle made(options, text);
  auto choices = options.tokens.empty() ? KnownTokens() : std::vector<std::vector<std::string>>{options.tokens};
  for (const std::vector<std::string>& names : choices) {
    std::optional<uint32_t> ids[3];
    for (int i = 0; i < 3; ++i) ids[i] = text.tokenizer()->TokenId(names[i]);
    if (!ids[0] || !ids[1] || !ids[2]) continue;
    std::tie(made.prefix_, made.suffix_, made.middle_) = std::tie(*ids[0], *ids[1], *ids[2]);
    return made;
  }
  std::vector<std::string> wanted;
  for (const auto& names : choices) wanted.push_back(absl::StrJoin(names, " "));
  return absl::InvalidArgumentError(absl::StrCat(
      "fill in the middle: the tokenizer lacks the tokens for prefix, suffix and middle; looked for ",
      absl::StrJoin(wanted, ", or "), "; name its own"));
}

absl::StatusOr<std::vector<uint32_t>> FillInTheMiddle::Encode(std::string_view document, uint64_t file,
                                                              uint64_t line) const {
  const random::PhiloxWords draw =
      random::Philox({0, 0, 0, 0}, random::DeriveKey(random::DeriveKey(options_.seed, file), line));
  auto encode = [&](std::string_view part) { return text_->Encode(part, /*add_special_tokens=*/false); };
  if (document.empty() || Share(draw[0]) >= options_.rate) return encode(document);
  const auto characters = static_cast<uint64_t>(std::count_if(
      document.begin(), document.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
  uint64_t cuts[2] = {Draw(draw[1], characters + 1), Draw(draw[2], characters + 1)};
  std::sort(cuts, cuts + 2);
  const size_t first = ByteOfCharacter(document, cuts[0]), second = ByteOfCharacter(document, cuts[1]);
  const bool suffix_first = Share(draw[3]) < options_.suffix_first;
  const std::string_view before = document.substr(0, first), middle = document.substr(first, second - first);
  std::vector<uint32_t> ids = {prefix_};
  auto append = [&](std::string_view part) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(std::vector<uint32_t> more, encode(part));
    ids.insert(ids.end(), more.begin(), more.end());
    return absl::OkStatus();
  };
  if (!suffix_first) REIN_RETURN_IF_ERROR(append(before));
  ids.push_back(suffix_);
  REIN_RETURN_IF_ERROR(append(document.substr(second)));
  ids.push_back(middle_);
  if (suffix_first) REIN_RETURN_IF_ERROR(append(before));
  REIN_RETURN_IF_ERROR(append(middle));
  return ids;
}

}  // namespace rein::data
