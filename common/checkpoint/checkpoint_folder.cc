#include "common/checkpoint/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/durable_file.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::checkpoint {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kManifest[] = "manifest.json";
constexpr char kFormat[] = "rein.checkpoint.v1";
constexpr size_t kMaxManifestBytes = 4 << 20;

struct FileSum {
  uint64_t bytes = 0;
  std::string digest;
};

absl::StatusOr<FileSum> Sum(const std::string& path) {
  int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return FromErrno("cannot open", path);
  struct stat status {};
  fstat(descriptor, &status);
  FileSum sum{static_cast<uint64_t>(status.st_size), ""};
  uint64_t digest = weights::Digest(nullptr, 0);
  if (sum.bytes > 0) {
    void* mapped = mmap(nullptr, sum.bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (mapped == MAP_FAILED) {
      absl::Status failed = FromErrno("cannot map", path);
      close(descriptor);
      return failed;
    }
    digest = weights::Digest(mapped, sum.bytes);
    munmap(mapped, sum.bytes);
  }
  close(descriptor);
  sum.digest = absl::StrCat(absl::Hex(digest, absl::kZeroPad16));
  return sum;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(
    const std::string& path) {
  if (fs::exists(path)) return absl::AlreadyExistsError(absl::StrCat(path, " exists already"));
  const fs::path parent = fs::path(path).parent_path();
  const std::string prefix = absl::StrCat(".", fs::path(path).filename().string(), ".tmp-");
  std::error_code error;
  fs::create_directories(parent, error);
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    if (entry.path().filename().string().rfind(prefix, 0) == 0) fs::remove_all(entry.path(), error);
  }
  const std::string temporary = (parent / absl::StrCat(prefix, getpid())).string();
  if (mkdir(temporary.c_str(), 0755) != 0) return FromErrno("cannot make folder", temporary);
  return std::unique_ptr<CheckpointWriter>(new CheckpointWriter(path, temporary));
}

CheckpointWriter::CheckpointWriter(std::string path, std::string temporary)
    : path_(std::move(path)), temporary_(std::move(temporary)) {}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

absl::StatusOr<uint64_t> CheckpointWriter::Commit() {
  json files = json::object();
  uint64_t total = 0;
  for (const auto& entry : fs::directory_iterator(temporary_)) {
    REIN_ASSIGN_OR_RETURN(FileSum sum, Sum(entry.path().string()));
    files[entry.path().filename().string()] = {{"bytes", sum.bytes}, {"digest", sum.digest}};
    total += sum.bytes;
  }
  json manifest = {{"format", kFormat}, {"files", files}};
  REIN_RETURN_IF_ERROR(
      WriteDurably(absl::StrCat(temporary_, "/", kManifest), manifest.dump(2) + "\n"));
  REIN_RETURN_IF_ERROR(SyncFolder(temporary_));
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return FromErrno("cannot rename to", path_);
  temporary_.clear();
  REIN_RETURN_IF_ERROR(SyncFolder(fs::path(path_).parent_path().string()));
  return total;
}

absl::Status CheckFormat(const json& json, const std::string& wanted, const std::string& path) {
  const nlohmann::json format = json.is_object() ? json.value("format", nlohmann::json()) : nlohmann::json();
  if (format == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": is of format ", format.dump(), ", this build reads \"", wanted,
                                                 "\": go on with the version of Rein that wrote it"));
}

absl::Status VerifyCheckpoint(const std::string& path) {
  const std::string manifest_path = absl::StrCat(path, "/", kManifest);
  absl::StatusOr<json> read =
      rein::json::ReadJsonFile(manifest_path, {.max_bytes = kMaxManifestBytes});
  if (absl::IsNotFound(read.status())) return read.status();
  if (!read.ok()) return absl::DataLossError(read.status().message());
  const json& manifest = *read;
  if (!manifest.is_object() || !manifest.value("files", json()).is_object()) {
    return absl::DataLossError(absl::StrCat(manifest_path, ": is no manifest"));
  }
  REIN_RETURN_IF_ERROR(CheckFormat(manifest, kFormat, manifest_path));
  for (const auto& [name, want] : manifest["files"].items()) {
    absl::StatusOr<FileSum> have = Sum(absl::StrCat(path, "/", name));
    if (!have.ok()) return absl::DataLossError(std::string(have.status().message()));
    if (!want.is_object() || want.value("bytes", uint64_t{0}) != have->bytes ||
        want.value("digest", std::string()) != have->digest) {
      return absl::DataLossError(absl::StrCat(path, "/", name, ": has ", have->bytes,
                                              " bytes, digest ", have->digest,
                                              "; the manifest wants ", want.dump()));
    }
  }
  return absl::OkStatus();
}

}  // namespace rein::checkpoint
