#include "services/cli/version_skew.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace rein::cli {
namespace {

// {0, 1} of "0.1.0".
std::optional<std::pair<int, int>> MajorAndMinor(const std::string& release) {
  const std::vector<std::string> parts = absl::StrSplit(release, '.');
  int major = 0, minor = 0;
  if (parts.size() < 2 || !absl::SimpleAtoi(parts[0], &major) || !absl::SimpleAtoi(parts[1], &minor)) return std::nullopt;
  return std::make_pair(major, minor);
}

}  // namespace

std::optional<VersionSkew> SkewOf(const std::string& rein, const std::string& controller) {
  const auto ours = MajorAndMinor(rein), theirs = MajorAndMinor(controller);
  if (!ours.has_value() || !theirs.has_value()) return std::nullopt;
  if (ours->first == theirs->first && std::abs(ours->second - theirs->second) <= 1) return std::nullopt;
  return VersionSkew{absl::StrCat("rein ", rein, ", controller ", controller),
                     absl::StrCat("they work together within one minor version: ",
                                  *ours < *theirs ? absl::StrCat("update this rein to ", controller)
                                                  : absl::StrCat("update the services to ", rein, ", or use a rein ", controller))};
}

}  // namespace rein::cli
