// Files that are on the disk when a call returns, or gone.

#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace rein::checkpoint {

// "what path: reason", and what is free where the disk is full; RESOURCE_EXHAUSTED for a full disk or quota, NOT_FOUND, PERMISSION_DENIED,
// else INTERNAL. Reads errno.
absl::Status FromErrno(absl::string_view what, absl::string_view path);

// A file that is written once from front to back. Without Close() it is removed.
class DurableFile {
 public:
  static absl::StatusOr<std::unique_ptr<DurableFile>> Create(const std::string& path);
  ~DurableFile();

  absl::Status Append(const char* bytes, size_t size);
  absl::Status Close();  // fsync

 private:
  DurableFile(int descriptor, std::string path);

  int descriptor_;
  std::string path_;
};

// Writes a whole small file durably.
absl::Status WriteDurably(const std::string& path, absl::string_view content);

// Makes the names of new or renamed entries of `folder` durable.
absl::Status SyncFolder(const std::string& folder);

}  // namespace rein::checkpoint
