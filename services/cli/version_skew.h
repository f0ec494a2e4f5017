// Which versions of the command and of the controller work together: those at most one minor version apart.

#pragma once

#include <optional>
#include <string>

namespace rein::cli {

struct VersionSkew {
  std::string both;  // "rein 0.1.0, controller 0.3.0"
  std::string next;  // what to do about it
};

// Nothing when releases such as "0.1.0" work together, or one of them is no release.
std::optional<VersionSkew> SkewOf(const std::string& rein, const std::string& controller);

}  // namespace rein::cli
