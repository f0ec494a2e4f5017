#include "common/files/read_file.h"

#include "absl/strings/str_cat.h"

#include "common/files/mapped_file.h"
#include "common/status/status_macros.h"

namespace rein::files {

absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t max_bytes) {
  REIN_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  if (file->bytes().size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", file->bytes().size(), " bytes, at most ", max_bytes, " are read"));
  }
  return std::string(file->bytes());
}

}  // namespace rein::files
