// Explain tells what a key of a job means: type, unit, range, default, meaning, names elsewhere.

#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace rein::config {

// `path` is a dotted key such as grpo.clip.high; empty for the whole job; "algorithms" for the list of
// policy-gradient algorithms. Defaults are those of the preset that the path begins with. List indexes may be left
// out. NOT_FOUND names the nearest key.
absl::StatusOr<std::string> Explain(const std::string& path);

}  // namespace rein::config
