// SameAnswer: whether two mathematical answers mean the same.
//
//   SameAnswer(ParseAnswer("\\frac{1}{2}"), ParseAnswer("0.5"))      true
//
// Numbers and expressions are compared by value: exactly where both are rational functions of their
// symbols, within the rounding of double precision where they hold roots or functions, within
// `tolerance` where one side was written as a decimal with a fraction. Lists without brackets and
// sets compare in any order, tuples, intervals and matrices element by element; "x = 5" is 5 where
// the other side is no equation; two equations are the same when their zero forms differ by a
// constant factor; "x > 2" is (2, infinity). A percent sign or a unit on one side only is ignored
// (unless require_units), on both sides units are converted. "a ± b" is both values.
// What cannot be read as mathematics is the same only if its spelling is.
//
// Bounded by steps, not by time; thread-safe.

#pragma once

#include "reward/math/expression.h"

namespace rein::reward::math {

struct EquivalenceOptions {
  double tolerance = 1e-6;  // relative to the right answer
  bool require_units = false;
};

bool SameAnswer(const Expression& right, const Expression& answer,
                const EquivalenceOptions& options = {});

}  // namespace rein::reward::math
