#include "common/checkpoint/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/files/disk_room.h"
#include "common/status/status_macros.h"

namespace rein::checkpoint {

absl::Status FromErrno(absl::string_view what, absl::string_view path) {
  const int error = errno;
  std::string message = absl::StrCat(what, " ", path, ": ", std::strerror(error), files::DiskRoom(std::string(path), error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    case ENOENT:
      return absl::NotFoundError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case EACCES:
    case EROFS:
      return absl::PermissionDeniedError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<std::unique_ptr<DurableFile>> DurableFile::Create(const std::string& path) {
  int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) return FromErrno("cannot create", path);
  return std::unique_ptr<DurableFile>(new DurableFile(descriptor, path));
}

DurableFile::DurableFile(int descriptor, std::string path)
    : descriptor_(descriptor), path_(std::move(path)) {}

DurableFile::~DurableFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  unlink(path_.c_str());
}

absl::Status DurableFile::Append(const char* bytes, size_t size) {
  constexpr size_t kMaxWrite = size_t{1} << 30;
  while (size > 0) {
    ssize_t written = write(descriptor_, bytes, std::min(size, kMaxWrite));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FromErrno("cannot write", path_);
    bytes += written;
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status DurableFile::Close() {
  if (fsync(descriptor_) != 0) return FromErrno("cannot flush", path_);
  if (close(std::exchange(descriptor_, -1)) != 0) return FromErrno("cannot close", path_);
  return absl::OkStatus();
}

absl::Status WriteDurably(const std::string& path, absl::string_view content) {
  REIN_ASSIGN_OR_RETURN(auto file, DurableFile::Create(path));
  REIN_RETURN_IF_ERROR(file->Append(content.data(), content.size()));
  return file->Close();
}

absl::Status SyncFolder(const std::string& folder) {
  int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return FromErrno("cannot open", folder);
  int failed = fsync(descriptor);
  absl::Status status = failed == 0 ? absl::OkStatus() : FromErrno("cannot flush", folder);
  close(descriptor);
  return status;
}

}  // namespace rein::checkpoint
