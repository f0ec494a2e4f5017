#include "reward/rules/regex_match.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace rein::reward {

absl::StatusOr<double> RegexMatch(const Pattern& pattern, absl::string_view completion,
                                  absl::string_view answer, const Expired& expired) {
  const re2::StringPiece text(completion.data(), completion.size());
  const int groups = std::min(pattern.re2().NumberOfCapturingGroups(), 1) + 1;
  re2::StringPiece found[2];
  re2::StringPiece last[2];
  bool any = false;
  for (size_t start = 0; start <= text.size();) {
    if (!pattern.re2().Match(text, start, text.size(), RE2::UNANCHORED, found, groups)) break;
    any = true;
    if (groups == 1) return 1.0;
    std::copy(found, found + groups, last);
    size_t end = found[0].data() - text.data() + found[0].size();
    start = found[0].empty() ? end + 1 : end;
    if (expired()) return absl::DeadlineExceededError("too many matches");
  }
  if (!any || last[1].data() == nullptr) return 0.0;
  absl::string_view captured(last[1].data(), last[1].size());
  bool same = absl::StripAsciiWhitespace(captured) == absl::StripAsciiWhitespace(answer);
  return same ? 1.0 : 0.0;
}

}  // namespace rein::reward
