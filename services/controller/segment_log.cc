#include "services/controller/segment_log.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/files/disk_room.h"
#include "common/status/status_macros.h"
#include "services/controller/crc32c.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;

constexpr char kExtension[] = ".rollouts";
constexpr uint64_t kHeaderBytes = 8;
constexpr uint32_t kMaxPayloadBytes = 64 << 20;

void PutU32(char* to, uint32_t value) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<char>(value >> (8 * i));
}

uint32_t GetU32(const char* from) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value |= uint32_t{static_cast<uint8_t>(from[i])} << (8 * i);
  return value;
}

// False at the end of the file or on an error.
bool ReadAt(int file, uint64_t offset, char* to, size_t bytes) {
  while (bytes > 0) {
    ssize_t got = pread(file, to, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

// The payload at `offset`, or nothing when no whole, intact record is there.
bool ReadRecord(int file, uint64_t offset, std::string& payload) {
  char header[kHeaderBytes];
  if (!ReadAt(file, offset, header, kHeaderBytes)) return false;
  uint32_t bytes = GetU32(header);
  if (bytes > kMaxPayloadBytes) return false;
  payload.resize(bytes);
  return ReadAt(file, offset + kHeaderBytes, payload.data(), bytes) &&
         Crc32c(payload) == GetU32(header + 4);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SegmentLog>> SegmentLog::Open(const std::string& folder,
                                                             SegmentOptions options) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make ", folder, files::DiskRoom(folder, error.value())));
  auto log = std::unique_ptr<SegmentLog>(new SegmentLog(folder, options));
  const std::vector<uint32_t> segments = log->List();
  if (options.shared) {
    log->segment_ = segments.empty() ? 0 : segments.back();
    return log;
  }
  REIN_RETURN_IF_ERROR(log->OpenSegment(segments.empty() ? 1 : segments.back()));
  REIN_RETURN_IF_ERROR(log->CutTornTail());
  return log;
}

SegmentLog::~SegmentLog() {
  if (file_ >= 0) close(file_);
}

std::string SegmentLog::PathOf(uint32_t segment) const {
  return absl::StrCat(folder_, "/", absl::Dec(segment, absl::kZeroPad6), kExtension);
}

std::vector<uint32_t> SegmentLog::List() const {
  std::vector<uint32_t> segments;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    uint32_t segment = 0;
    if (entry.path().extension() == kExtension &&
        absl::SimpleAtoi(entry.path().stem().string(), &segment)) {
      segments.push_back(segment);
    }
  }
  std::sort(segments.begin(), segments.end());
  return segments;
}

void SegmentLog::Remove(uint32_t segment) {
  if (segment != segment_) unlink(PathOf(segment).c_str());
}

absl::Status SegmentLog::OpenSegment(uint32_t segment) {
  if (file_ >= 0) close(file_);
  const std::string path = PathOf(segment);
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (options_.shared ? O_EXCL : 0), 0644);
  if (file_ < 0) {
    const int reason = errno;
    return absl::ErrnoToStatus(reason, absl::StrCat("cannot open ", path, files::DiskRoom(path, reason)));
  }
  struct stat status;
  if (fstat(file_, &status) != 0) return absl::ErrnoToStatus(errno, path);
  segment_ = segment;
  size_ = synced_ = static_cast<uint64_t>(status.st_size);
  if (size_ > 0 || !options_.durable) return absl::OkStatus();
  // A new file's name is durable once its folder is.
  int folder = open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool synced = folder >= 0 && fsync(folder) == 0;
  int reason = errno;
  if (folder >= 0) close(folder);
  return synced ? absl::OkStatus() : absl::ErrnoToStatus(reason, "cannot sync " + folder_);
}

absl::Status SegmentLog::OpenNext() {
  for (uint32_t segment = segment_ + 1;; ++segment) {
    absl::Status opened = OpenSegment(segment);
    if (!absl::IsAlreadyExists(opened)) return opened;
  }
}

absl::Status SegmentLog::CutTornTail() {
  uint64_t offset = 0;
  std::string payload;
  while (offset < size_ && ReadRecord(file_, offset, payload)) {
    offset += kHeaderBytes + payload.size();
  }
  if (offset == size_) return absl::OkStatus();
  if (ftruncate(file_, static_cast<off_t>(offset)) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot cut ", PathOf(segment_)));
  }
  size_ = synced_ = offset;
  return absl::OkStatus();
}

absl::StatusOr<RecordPlace> SegmentLog::Append(const std::string& payload) {
  if (payload.size() > kMaxPayloadBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a record has ", payload.size(), " bytes, at most ", kMaxPayloadBytes));
  }
  REIN_RETURN_IF_ERROR(failed_);
  if (file_ < 0 || size_ >= options_.max_bytes) {
    REIN_RETURN_IF_ERROR(Sync());
    REIN_RETURN_IF_ERROR(OpenNext());
  }
  std::string record(kHeaderBytes, '\0');
  PutU32(record.data(), static_cast<uint32_t>(payload.size()));
  PutU32(record.data() + 4, Crc32c(payload));
  record += payload;
  size_t written = 0;
  while (written < record.size()) {
    ssize_t put = pwrite(file_, record.data() + written, record.size() - written,
                         static_cast<off_t>(size_ + written));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      int reason = errno;  // the part that was written is overwritten by the next record
      return absl::ErrnoToStatus(reason, absl::StrCat("cannot append to ", PathOf(segment_), files::DiskRoom(folder_, reason)));
    }
    written += static_cast<size_t>(put);
  }
  RecordPlace place{.segment = segment_, .offset = size_};
  size_ += record.size();
  return place;
}

absl::Status SegmentLog::Sync() {
  REIN_RETURN_IF_ERROR(failed_);
  if (size_ == synced_ || !options_.durable) return absl::OkStatus();
  if (fdatasync(file_) != 0) {
    const int reason = errno;
    failed_ = absl::ErrnoToStatus(reason, absl::StrCat("cannot sync ", PathOf(segment_), files::DiskRoom(folder_, reason)));
    // What is read from memory may never have reached the disk; should this fail too, nobody asks for it all the same.
    if (ftruncate(file_, static_cast<off_t>(synced_)) == 0) size_ = synced_;
    return failed_;
  }
  synced_ = size_;
  return absl::OkStatus();
}

absl::StatusOr<std::string> SegmentLog::Read(const RecordPlace& place) {
  int file = file_;
  if (file_ < 0 || place.segment != segment_) {
    file = open(PathOf(place.segment).c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0)
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", PathOf(place.segment)));
  }
  std::string payload;
  bool intact = ReadRecord(file, place.offset, payload);
  if (file != file_) close(file);
  if (!intact) {
    return absl::DataLossError(absl::StrCat(PathOf(place.segment), ": the record at byte ",
                                            place.offset, " is missing or damaged"));
  }
  return payload;
}

}  // namespace rein::services
