// NearestName finds what somebody meant when they mistyped a name.

#pragma once

#include <string>
#include <vector>

namespace rein::config {

// The candidate with the fewest typing errors, when they are few enough to be a slip; else "".
// Upper and lower case, '-' and '_' count as equal, and a candidate that starts with `name` counts.
std::string NearestName(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace rein::config
