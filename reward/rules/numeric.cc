#include "reward/rules/numeric.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "reward/rules/number.h"

namespace rein::reward {

absl::StatusOr<double> Numeric(absl::string_view completion, absl::string_view answer,
                               const NumericOptions& options) {
  std::optional<Number> wanted = LastNumber(answer);
  if (!wanted.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the answer '", answer.substr(0, 100), "' holds no number"));
  }
  absl::string_view text = absl::StripAsciiWhitespace(completion);
  std::optional<Number> actual = LastNumber(text);
  if (!actual.has_value()) return 0.0;
  if (options.only_number && (actual->begin != 0 || actual->end != text.size())) return 0.0;
  return SameNumber(*actual, *wanted, options.tolerance) ? 1.0 : 0.0;
}

}  // namespace rein::reward
