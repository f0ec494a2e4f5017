// Unit: what a quantity is measured in, so that 1 m and 100 cm, or 5 apples and 5 apple, can be
// compared.

#pragma once

#include <map>
#include <string>

#include "absl/strings/string_view.h"

namespace rein::reward::math {

struct Unit {
  // Powers of what it is made of: {"meter", 1}, {"second", -1}; a word that is in no table is a
  // kind of its own. Empty: a plain count ("units").
  std::map<std::string, int> dimensions;
  // How many of the first unit of each kind it is: 0.01 for cm.
  double factor = 1;
};

// "km/h", "square meters", "cm^2", "miles per hour", "apples". Letter case counts only where it
// tells units apart (mg, Mg).
Unit ParseUnit(absl::string_view text);

bool IsKnownUnit(absl::string_view word);

// Whether a run of letters right behind a number is a unit and not a product of variables: it
// stands in the table, or has four letters or more.
bool NamesUnit(absl::string_view word);

}  // namespace rein::reward::math
