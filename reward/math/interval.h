// Interval: what an inequality of one symbol, or two numbers in brackets, say of that symbol.

#pragma once

#include <functional>
#include <optional>

#include "reward/math/evaluate.h"

namespace rein::reward::math {

struct Interval {
  std::optional<View> low, high;  // absent: infinite
  bool low_closed = false, high_closed = false;
};

// "(1, 2]", "x > 2", "1 < x <= 2". nullopt for what is neither.
std::optional<Interval> ToInterval(View view);

bool IsInequality(View view);

// Infinity with any number of signs.
bool IsInfinite(View view);

// Whether the node or one below it holds.
bool Any(View view, const std::function<bool(const Node&)>& holds);
bool HasSymbol(View view);

inline Kind KindOf(View view) { return (*view).kind; }

}  // namespace rein::reward::math
