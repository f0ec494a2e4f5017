#include "reward/rules/fenced_block.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace rein::reward {

std::optional<absl::string_view> LastFencedBlock(absl::string_view text) {
  std::optional<absl::string_view> closed, open;
  size_t line = 0;
  while (line <= text.size()) {
    size_t end = std::min(text.find('\n', line), text.size());
    absl::string_view words = absl::StripLeadingAsciiWhitespace(text.substr(line, end - line));
    const size_t next = std::min(end + 1, text.size());
    if (absl::StartsWith(words, "```")) {
      if (!open.has_value()) {
        open = text.substr(next);
      } else {
        closed = open->substr(0, line - static_cast<size_t>(open->data() - text.data()));
        open.reset();
      }
    }
    if (end == text.size()) break;
    line = end + 1;
  }
  return closed.has_value() ? closed : open;
}

}  // namespace rein::reward
