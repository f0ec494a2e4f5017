#include "common/files/append_whole.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include <sys/stat.h>
#include <unistd.h>

#include "common/files/disk_room.h"

namespace rein::files {

absl::Status AppendWhole(int file, const std::string& path, absl::string_view record) {
  struct stat before;
  const bool regular = fstat(file, &before) == 0 && S_ISREG(before.st_mode);
  while (!record.empty()) {
    const ssize_t written = write(file, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int reason = written < 0 ? errno : ENOSPC;
      std::string text = absl::StrCat("cannot append to ", path);
      if (regular && ftruncate(file, before.st_size) != 0) absl::StrAppend(&text, ", nor cut the part that was written,");
      return absl::ErrnoToStatus(reason, absl::StrCat(text, files::DiskRoom(path, reason)));
    }
    record.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace rein::files
