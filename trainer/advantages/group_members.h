// Who is whose sibling.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace rein::trainer {

// The indices of each group's members, in order; groups by label.
inline std::map<uint32_t, std::vector<size_t>> GroupMembers(const std::vector<uint32_t>& group) {
  std::map<uint32_t, std::vector<size_t>> members;
  for (size_t i = 0; i < group.size(); ++i) members[group[i]].push_back(i);
  return members;
}

// Rounding of a mean must not invent a signal where there is none.
inline bool AllEqual(const std::vector<double>& reward, const std::vector<size_t>& members) {
  for (size_t i : members) {
    if (reward[i] != reward[members[0]]) return false;
  }
  return true;
}

}  // namespace rein::trainer
