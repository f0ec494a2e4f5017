// ParseAnswer reads a mathematical answer in LaTeX or plain text.
//
//   Expression answer = ParseAnswer("x = \\frac{1}{2} \\text{ cm}");
//
// Bounded: text, nesting and the number of nodes have limits, and time is linear in the text. What
// cannot be read has root -1 and its spelling only.

#pragma once

#include "absl/strings/string_view.h"

#include "reward/math/expression.h"

namespace rein::reward::math {

inline constexpr int kMaxDepth = 64;
inline constexpr int kMaxNodes = 2000;

Expression ParseAnswer(absl::string_view text);

}  // namespace rein::reward::math
