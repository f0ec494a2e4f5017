#include "common/tensor/memory_check.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace rein::tensor {
namespace {

constexpr double kGib = 1 << 30;
constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();

// What could be had without swapping.
uint64_t MachineBytes() {
  std::ifstream in("/proc/meminfo");
  std::string key, unit;
  uint64_t kib = 0;
  while (in >> key >> kib) {
    std::getline(in, unit);
    if (key == "MemAvailable:") return kib << 10;
  }
  return kUnknown;
}

// The limit of a container; what it uses now is mostly page cache, which gives way.
uint64_t GroupBytes() {
  std::ifstream in("/sys/fs/cgroup/memory.max");
  uint64_t bytes = 0;
  return in >> bytes ? bytes : kUnknown;
}

}  // namespace

absl::Status CheckHostMemory(absl::string_view what, uint64_t bytes) {
  const uint64_t left = std::min(MachineBytes(), GroupBytes());
  if (bytes <= left) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat("out of memory: %s take %.1f GiB, %.1f GiB are left",
                                                      what, static_cast<double>(bytes) / kGib,
                                                      static_cast<double>(left) / kGib));
}

}  // namespace rein::tensor
