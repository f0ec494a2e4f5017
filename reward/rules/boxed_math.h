// BoxedMath: 1 when the last \boxed{...} of the completion equals the answer after normalisation.
//
// Normalisation follows `is_equiv` of the MATH dataset (Hendrycks et al., arXiv 2103.03874):
// spaces, units, currency and size commands go, \dfrac becomes \frac, "a/b" a fraction; beside
// that, numbers compare by value: 0.5 is \frac{1}{2}. This is equality of spelling, not algebra:
// 2x+1 is not 1+2x.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace rein::reward {

absl::StatusOr<double> BoxedMath(absl::string_view completion, absl::string_view answer);

std::string NormalizeMath(absl::string_view text);

}  // namespace rein::reward
