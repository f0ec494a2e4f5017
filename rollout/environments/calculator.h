// Calculate evaluates an arithmetic expression that a model wrote.
//
//   + - * / // % ^ **, brackets, unary signs, numbers (1,000 and 1e3 too), pi, e,
//   abs ceil cos exp factorial floor gcd ln log log10 log2 max min round sin sqrt tan
//
// Whole numbers and fractions are exact while numerator and denominator fit 64 bits; beyond that, and for functions,
// double precision. ^ and ** are powers and bind from the right; // and % round down, as in Python; log(x) is the natural
// logarithm, log(x, b) that to base b. No evaluator of a language: nothing but numbers can come out.

#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace rein::rollout {

// "6", "1/3 = 0.3333333333333333", "1.4142135623730951". INVALID_ARGUMENT says what is wrong and where: for a
// division by zero, a result that is not finite, an expression of more than 1000 characters or 64 brackets deep.
absl::StatusOr<std::string> Calculate(std::string_view expression);

}  // namespace rein::rollout
