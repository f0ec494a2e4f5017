// ReadFile returns the whole content of a file that must not be larger than a stated limit.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace rein::files {

// NOT_FOUND when there is no such file, PERMISSION_DENIED when it may not be read, INVALID_ARGUMENT
// when it is not a regular file or larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t max_bytes);

}  // namespace rein::files
