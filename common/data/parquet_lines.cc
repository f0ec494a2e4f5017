#include "common/data/parquet_lines.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include <unistd.h>

#include "common/status/status_macros.h"
#include "common/text/rust_abi.h"

namespace rein::data {
namespace {

namespace fs = std::filesystem;

struct FreeParquet {
  void operator()(ReinParquet* file) const { rein_parquet_free(file); }
};

// A file that is gone once it is closed or unmapped.
class TemporaryFile {
 public:
  static absl::StatusOr<TemporaryFile> Create() {
    std::error_code error;
    std::string name = (fs::temp_directory_path(error) / "rein-rows-XXXXXX").string();
    const int descriptor = mkstemp(name.data());
    if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot make ", name));
    return TemporaryFile(descriptor, std::move(name));
  }
  TemporaryFile(TemporaryFile&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)), name_(std::move(other.name_)) {}
  ~TemporaryFile() {
    if (descriptor_ < 0) return;
    close(descriptor_);
    unlink(name_.c_str());
  }

  absl::Status Append(const char* data, size_t size) {
    while (size > 0) {
      const ssize_t written = write(descriptor_, data, size);
      if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write all rows to ", name_));
      data += written;
      size -= static_cast<size_t>(written);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<files::MappedFile>> Map() const { return files::MappedFile::Open(name_); }

 private:
  TemporaryFile(int descriptor, std::string name) : descriptor_(descriptor), name_(std::move(name)) {}

  int descriptor_;
  std::string name_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<files::MappedFile>> ParquetAsLines(const std::string& path) {
  REIN_RETURN_IF_ERROR(files::MappedFile::Open(path).status());  // says best what is wrong with a path
  ReinParquet* opened = nullptr;
  uint32_t groups = 0;
  REIN_RETURN_IF_ERROR(
      text::FromRust(path.c_str(), rein_parquet_open(path.data(), path.size(), &opened, &groups)));
  const std::unique_ptr<ReinParquet, FreeParquet> file(opened);
  REIN_ASSIGN_OR_RETURN(TemporaryFile lines, TemporaryFile::Create());
  for (uint32_t group = 0; group < groups; ++group) {
    text::RustBytes rows;
    REIN_RETURN_IF_ERROR(text::FromRust(absl::StrCat(path, ", row group ", group).c_str(),
                                        rein_parquet_lines(file.get(), group, rows.out())));
    REIN_RETURN_IF_ERROR(lines.Append(reinterpret_cast<const char*>(rows.data()), rows.size()));
  }
  return lines.Map();
}

}  // namespace rein::data
