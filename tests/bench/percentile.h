// Of measured values, for benchmarks.

#pragma once

#include <algorithm>
#include <vector>

namespace rein {

// The value below which `share` of them lie, in [0, 1]; 0 of none.
inline double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

}  // namespace rein
