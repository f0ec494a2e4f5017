// Numeric: 1 when the last number of the completion equals the last number of the answer.

#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace rein::reward {

struct NumericOptions {
  // Largest difference, relative to max(1, |answer|); whole numbers must be equal.
  double tolerance = 1e-6;
  // Also ask that the completion, white space trimmed, is nothing but the number.
  bool only_number = false;
};

// INVALID_ARGUMENT when the answer holds no number.
absl::StatusOr<double> Numeric(absl::string_view completion, absl::string_view answer,
                               const NumericOptions& options = {});

}  // namespace rein::reward
