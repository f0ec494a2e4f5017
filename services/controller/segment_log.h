// SegmentLog keeps records in append-only files beside the database: large payloads that are
// written once and read seldom.
//
//   REIN_ASSIGN_OR_RETURN(auto log, SegmentLog::Open(folder));
//   REIN_ASSIGN_OR_RETURN(RecordPlace place, log->Append(bytes));
//   REIN_RETURN_IF_ERROR(log->Sync());  // before `place` is committed anywhere
//   REIN_ASSIGN_OR_RETURN(std::string bytes, log->Read(place));
//
// A shared log never appends to a file that it did not make itself, and leaves the others as they are: whoever made
// them may still write, though nobody will ask for what comes now.
//
// A record is length (u32), CRC-32C of the payload (u32), payload; little-endian. A torn record at
// the end of the newest file is cut off when the log is opened; a bad one elsewhere is DATA_LOSS
// when it is read. Not thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::services {

struct RecordPlace {
  uint32_t segment = 0;
  uint64_t offset = 0;  // of the record's first byte in its file
};

struct SegmentOptions {
  static constexpr uint64_t kMaxBytes = 256 << 20;

  bool durable = true;             // false: Sync() does nothing (tests only)
  uint64_t max_bytes = kMaxBytes;  // a file that has so many is followed by the next
  bool shared = false;             // other processes may have files of this log open
};

class SegmentLog {
 public:
  // Makes the folder when it is absent.
  static absl::StatusOr<std::unique_ptr<SegmentLog>> Open(const std::string& folder, SegmentOptions options = {});
  ~SegmentLog();

  // RESOURCE_EXHAUSTED when the disk is full: the record is not there then.
  absl::StatusOr<RecordPlace> Append(const std::string& payload);
  // After an error every later Sync() and Append() gives it again: the kernel takes what it could not write for written, so a
  // second try would succeed without it. What was appended since the last good one is gone, also for who opens the log next.
  absl::Status Sync();
  absl::StatusOr<std::string> Read(const RecordPlace& place);

  // The files that are there, oldest first; records are appended to the newest.
  std::vector<uint32_t> List() const;
  uint32_t newest() const { return segment_; }
  // Deletes an older file, if it is there.
  void Remove(uint32_t segment);

 private:
  SegmentLog(std::string folder, SegmentOptions options) : folder_(std::move(folder)), options_(options) {}
  std::string PathOf(uint32_t segment) const;
  absl::Status OpenSegment(uint32_t segment);
  // The one behind the newest, or the next that nobody else made.
  absl::Status OpenNext();
  absl::Status CutTornTail();

  const std::string folder_;
  const SegmentOptions options_;
  int file_ = -1;  // the newest segment; none in a shared log that nothing was appended to yet
  uint32_t segment_ = 0;
  uint64_t size_ = 0;
  uint64_t synced_ = 0;  // of size_, what the disk has
  absl::Status failed_;  // of a Sync()
};

}  // namespace rein::services
