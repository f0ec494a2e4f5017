// IsName says whether a text names a job or a group of actors: it stands in paths, labels and log lines.

#pragma once

#include <cstddef>
#include <string>

namespace rein::config {

inline constexpr char kNameRule[] = "at most 63 of a-z, 0-9 and -, not - in front";
inline constexpr char kDefaultGroup[] = "default";  // of actors that say none

inline bool IsName(const std::string& text) {
  constexpr size_t kMaxLength = 63;
  return !text.empty() && text.size() <= kMaxLength && text.front() != '-' &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

}  // namespace rein::config
