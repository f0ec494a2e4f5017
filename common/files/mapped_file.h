// MappedFile gives read access to a file of any size without copying it.
//
// The bytes stay valid, and the file open, for as long as the object lives. A file that another
// process shortens meanwhile faults at the missing pages: do not map what is still being written.
// Immutable and thread-safe.

#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace rein::files {

class MappedFile {
 public:
  // NOT_FOUND when there is no such file, PERMISSION_DENIED when it may not be read,
  // INVALID_ARGUMENT when it is not a regular file.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::string_view bytes) : bytes_(bytes) {}

  std::string_view bytes_;
};

}  // namespace rein::files
