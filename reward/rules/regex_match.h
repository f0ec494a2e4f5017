// RegexMatch: 1 when the pattern matches somewhere; with a capture group, when what the last match
// captured is the answer, white space around both trimmed.

#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "reward/rules/pattern.h"
#include "reward/rules/rule.h"

namespace rein::reward {

// DEADLINE_EXCEEDED when a text with very many matches takes too long.
absl::StatusOr<double> RegexMatch(const Pattern& pattern, absl::string_view completion,
                                  absl::string_view answer, const Expired& expired);

}  // namespace rein::reward
