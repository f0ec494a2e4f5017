// BuildJail makes the root that a program sees, from inside fresh namespaces.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rein::reward::sandbox {

// What a program may read: the system's programs and libraries.
const std::vector<std::string>& ReadableFolders();

// A root in memory, read-only: the readable folders, /dev/null, /dev/zero, /dev/urandom, and /work,
// a memory file system of `bytes` and a few thousand files; /tmp leads there. No /proc, no /sys, no
// /home. The old root is gone afterwards. "" or what failed.
std::string BuildJail(uint64_t bytes);

inline constexpr char kWorkFolder[] = "/work";

}  // namespace rein::reward::sandbox
