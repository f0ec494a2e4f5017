// AppendWhole appends to a file all of a record or nothing, so that one which a full disk has no room for does not spoil the
// next.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace rein::files {

// `file` was opened with O_APPEND and has no other writer that matters; `path` is its name. RESOURCE_EXHAUSTED when the disk is
// full (and how much of it is free), else what errno says; the file then has the bytes that it had before.
absl::Status AppendWhole(int file, const std::string& path, absl::string_view record);

}  // namespace rein::files
