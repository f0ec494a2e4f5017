#include "reward/rules/pattern.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace rein::reward {

absl::StatusOr<Pattern> Pattern::Compile(const std::string& pattern) {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_dot_nl(true);  // completions have several lines
  auto re2 = std::make_shared<const RE2>(pattern, options);
  if (!re2->ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern '", pattern, "' is not in RE2's syntax: ", re2->error()));
  }
  return Pattern(std::move(re2));
}

bool Pattern::FitsAll(absl::string_view text) const {
  text = absl::StripAsciiWhitespace(text);
  return RE2::FullMatch(re2::StringPiece(text.data(), text.size()), *re2_);
}

}  // namespace rein::reward
