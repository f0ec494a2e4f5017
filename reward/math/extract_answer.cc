#include "reward/math/extract_answer.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace rein::reward::math {
namespace {

constexpr absl::string_view kClose = "</answer>";

// Index behind the first end of a sentence: a line's end, or a point before white space.
size_t SentenceEnd(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n') return i;
    if (text[i] == '.' && (i + 1 == text.size() || absl::ascii_isspace(text[i + 1]))) return i;
  }
  return text.size();
}

}  // namespace

std::optional<std::string> LastBoxed(absl::string_view text) {
  struct Open {
    size_t brace;
    bool boxed;
  };
  std::vector<Open> open;
  size_t best = absl::string_view::npos;  // where the content of the last box so far begins
  std::string content;
  auto take = [&](size_t begin, size_t end) {
    if (best != absl::string_view::npos && begin < best) return;
    best = begin;
    content = std::string(text.substr(begin, end - begin));
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{') {
      absl::string_view before = text.substr(0, i);
      open.push_back({i, absl::EndsWith(before, "\\boxed") || absl::EndsWith(before, "\\fbox")});
    } else if (text[i] == '}' && !open.empty()) {
      if (open.back().boxed) take(open.back().brace + 1, i);
      open.pop_back();
    } else if (absl::StartsWith(text.substr(i), "\\boxed ")) {
      i += 6;
      size_t end = std::min(text.find_first_of("$\n", i), text.size());
      take(i, end);
    } else if (text[i] == '\\' && i + 1 < text.size() && absl::ascii_ispunct(text[i + 1])) {
      ++i;  // an escaped brace is no brace
    }
  }
  if (best == absl::string_view::npos) return std::nullopt;
  return std::string(absl::StripAsciiWhitespace(content));
}

std::optional<std::string> AfterMarker(absl::string_view text,
                                       const std::vector<std::string>& markers) {
  const std::string lower = absl::AsciiStrToLower(text);
  size_t begin = 0;
  bool tag = false;
  for (const std::string& marker : markers) {
    if (marker.empty()) continue;
    size_t at = lower.rfind(marker);
    if (at == std::string::npos || at + marker.size() <= begin) continue;
    begin = at + marker.size();
    tag = marker == "<answer>";
  }
  if (begin == 0) return std::nullopt;
  absl::string_view rest = text.substr(begin);
  if (size_t close = absl::string_view(lower).substr(begin).find(kClose);
      close != absl::string_view::npos && tag) {
    rest = rest.substr(0, close);
  } else {
    while (!rest.empty() &&
           (absl::ascii_isspace(rest.front()) || rest.front() == '*' || rest.front() == ':'))
      rest.remove_prefix(1);
    rest = rest.substr(0, SentenceEnd(rest));
  }
  while (!rest.empty() && (absl::ascii_isspace(rest.front()) || rest.front() == '*'))
    rest.remove_prefix(1);
  while (!rest.empty() && (absl::ascii_isspace(rest.back()) || rest.back() == '*'))
    rest.remove_suffix(1);
  if (rest.empty()) return std::nullopt;
  return std::string(rest);
}

const std::vector<std::string>& DefaultMarkers() {
  static const auto& markers = *new std::vector<std::string>{
      "####", "<answer>", "answer is", "answer:", "answer**:", "answer:**", "answer =", "answer="};
  return markers;
}

}  // namespace rein::reward::math
