#include "services/controller/tensorboard_file.h"

#include <bit>
#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include <fcntl.h>
#include <unistd.h>

#include "common/files/append_whole.h"
#include "common/files/disk_room.h"
#include "common/status/status_macros.h"
#include "services/controller/crc32c.h"

namespace rein::services {
namespace {

// Protobuf wire types.
constexpr uint64_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

void PutFixed(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
}

void PutVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  out += static_cast<char>(value);
}

void PutKey(std::string& out, uint64_t field, uint64_t type) { PutVarint(out, field << 3 | type); }

void PutBytes(std::string& out, uint64_t field, const std::string& bytes) {
  PutKey(out, field, kBytes);
  PutVarint(out, bytes.size());
  out += bytes;
}

uint32_t MaskedCrc(const std::string& bytes) {
  uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8;
}

// tensorflow.Event: wall_time = 1, step = 2, file_version = 3, summary = 5.
std::string EventAt(double wall_seconds) {
  std::string event;
  PutKey(event, 1, kFixed64);
  PutFixed(event, std::bit_cast<uint64_t>(wall_seconds), 8);
  return event;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorboardFile>> TensorboardFile::Create(const std::string& folder,
                                                                         double wall_seconds) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::string path = absl::StrCat(folder, "/events.out.tfevents.",
                                        static_cast<int64_t>(wall_seconds), ".rein.", getpid());
  int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) {
    const int reason = errno;
    return absl::ErrnoToStatus(reason, absl::StrCat("cannot make ", path, files::DiskRoom(path, reason)));
  }
  auto events = std::unique_ptr<TensorboardFile>(new TensorboardFile(file, path));
  std::string version = EventAt(wall_seconds);
  PutBytes(version, 3, "brain.Event:2");
  REIN_RETURN_IF_ERROR(events->AppendRecord(version));
  return events;
}

TensorboardFile::~TensorboardFile() { close(file_); }

absl::Status TensorboardFile::Append(double wall_seconds, uint64_t update,
                                     const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    std::string entry;  // Summary.Value: tag = 1, simple_value = 2
    PutBytes(entry, 1, tag);
    PutKey(entry, 2, kFixed32);
    PutFixed(entry, std::bit_cast<uint32_t>(static_cast<float>(value)), 4);
    PutBytes(summary, 1, entry);
  }
  std::string event = EventAt(wall_seconds);
  PutKey(event, 2, kVarint);
  PutVarint(event, update);
  PutBytes(event, 5, summary);
  return AppendRecord(event);
}

absl::Status TensorboardFile::AppendRecord(const std::string& payload) {
  std::string length;
  PutFixed(length, payload.size(), 8);
  std::string record = length;
  PutFixed(record, MaskedCrc(length), 4);
  record += payload;
  PutFixed(record, MaskedCrc(payload), 4);
  return files::AppendWhole(file_, path_, record);
}

}  // namespace rein::services
