// Pattern is a compiled regular expression whose matching time is linear in the text: RE2 has no
// backtracking, and refuses what would need it or too much memory.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "re2/re2.h"

namespace rein::reward {

class Pattern {
 public:
  // INVALID_ARGUMENT quotes the pattern and says what is wrong with it.
  static absl::StatusOr<Pattern> Compile(const std::string& pattern);

  // Whether the whole text, white space around it trimmed, has this form.
  bool FitsAll(absl::string_view text) const;

  const RE2& re2() const { return *re2_; }

 private:
  explicit Pattern(std::shared_ptr<const RE2> re2) : re2_(std::move(re2)) {}

  std::shared_ptr<const RE2> re2_;
};

}  // namespace rein::reward
