// What a process gives up before it becomes the program: capabilities, files, resources.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rein::reward::sandbox {

struct Confinement {
  std::vector<std::string> readable;  // folders and files that may be read and executed
  std::string writable;               // the work folder
  uint64_t processor_seconds = 2;
  uint64_t memory_bytes = 0;
  uint64_t processes = 16;
};

// Landlock's version in this kernel; 0 without.
int LandlockVersion();

// Each returns "" or what failed. RestrictFiles does nothing where the kernel has no Landlock.
std::string DropCapabilities();
std::string RestrictFiles(const Confinement& confinement);
std::string LimitResources(const Confinement& confinement);

// "mount: Operation not permitted", from errno.
std::string Failed(const std::string& doing);

}  // namespace rein::reward::sandbox
