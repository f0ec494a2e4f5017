// DiskRoom says what to add to an error of writing `path`: when its disk is full, how much of it is free, and what to do.
//
//   if (written < 0) {
//     const int reason = errno;
//     return absl::ErrnoToStatus(reason, absl::StrCat("cannot append to ", path, files::DiskRoom(path, reason)));
//   }

#pragma once

#include <string>

namespace rein::files {

// " (its disk has 0.0 MiB of 64.0 MiB free; ...)"; "" where `error`, an errno, is no full disk or quota. `path` need not exist.
std::string DiskRoom(const std::string& path, int error);

}  // namespace rein::files
