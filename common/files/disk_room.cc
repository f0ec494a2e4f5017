#include "common/files/disk_room.h"

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <sys/statvfs.h>

namespace rein::files {
namespace {

namespace fs = std::filesystem;

constexpr char kNext[] = "make room, rein gc --dry-run says what could go";

std::string Size(double bytes) {
  constexpr double kMib = 1 << 20, kGib = 1 << 30;
  return bytes < kGib ? absl::StrFormat("%.1f MiB", bytes / kMib) : absl::StrFormat("%.1f GiB", bytes / kGib);
}

// Of the nearest folder above that exists.
bool Ask(fs::path path, struct statvfs& disk) {
  while (statvfs(path.c_str(), &disk) != 0) {
    if (!path.has_parent_path() || path == path.parent_path()) return false;
    path = path.parent_path();
  }
  return true;
}

}  // namespace

std::string DiskRoom(const std::string& path, int error) {
  struct statvfs disk;
  std::error_code ignored;
  if (error != ENOSPC && error != EDQUOT) return "";
  if (error == EDQUOT || !Ask(fs::absolute(path, ignored), disk)) return absl::StrCat(" (", kNext, ")");
  const double unit = static_cast<double>(disk.f_frsize);
  std::string free = absl::StrCat(Size(unit * static_cast<double>(disk.f_bavail)), " of ", Size(unit * static_cast<double>(disk.f_blocks)));
  if (disk.f_files > 0 && disk.f_favail == 0) absl::StrAppend(&free, " and none of its ", disk.f_files, " files");
  return absl::StrCat(" (its disk has ", free, " free; ", kNext, ")");
}

}  // namespace rein::files
