#include "services/controller/result_file.h"

#include <cstdio>
#include <filesystem>

#include "common/status/status_macros.h"

namespace rein::services {
namespace {

std::string PartialOf(const std::string& path) { return path + ".partial"; }

}  // namespace

absl::StatusOr<std::unique_ptr<ResultFile>> ResultFile::Create(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  std::filesystem::remove(PartialOf(path), error);  // of a run that was killed
  REIN_ASSIGN_OR_RETURN(auto file, checkpoint::DurableFile::Create(PartialOf(path)));
  return std::unique_ptr<ResultFile>(new ResultFile(path, std::move(file)));
}

absl::Status ResultFile::Add(std::string line) {
  line += '\n';
  return file_->Append(line.data(), line.size());
}

absl::Status ResultFile::Close() {
  REIN_RETURN_IF_ERROR(file_->Close());
  if (std::rename(PartialOf(path_).c_str(), path_.c_str()) != 0) {
    return checkpoint::FromErrno("rename", path_);
  }
  return checkpoint::SyncFolder(std::filesystem::path(path_).parent_path().string());
}

}  // namespace rein::services
