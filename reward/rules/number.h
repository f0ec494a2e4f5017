// Numbers as people and models write them: "-1,234.50", "3/4", "2.5e-3", "−7" (U+2212).

#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace rein::reward {

struct Number {
  // Infinite beyond the range of a double.
  double value = 0;
  // Sign and digits without leading zeros, for what was written as an integer; else empty.
  std::string integer;
  // Where it stands in the text.
  size_t begin = 0;
  size_t end = 0;
};

// The last number of a text. Commas count only between groups of three digits; a minus sign only
// where no letter, digit or closing bracket stands before it, so "7-3" ends with 3; a slash only
// between two whole numbers that are not part of a longer chain such as a date.
std::optional<Number> LastNumber(absl::string_view text);

// Integers are the same when their digits are; else the difference may be `tolerance` relative to
// max(1, |wanted|).
bool SameNumber(const Number& actual, const Number& wanted, double tolerance);

}  // namespace rein::reward
