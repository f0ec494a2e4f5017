// SegmentLog keeps records in append-only files beside the database: large payloads that are
// written once and read seldom.
//
//   REIN_ASSIGN_OR_RETURN(auto log, SegmentLog::Open(folder));
//   REIN_ASSIGN_OR_RETURN(RecordPlace place, log->Append(bytes));
//   REIN_RETURN_IF_ERROR(log->Sync());  // before `place` is committed anywhere
//   REIN_ASSIGN_OR_RETURN(std::string bytes, log->Read(place));
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

class SegmentLog {
 public:
  static constexpr uint64_t kMaxSegmentBytes = 256 << 20;

  // Makes the folder when it is absent. `durable` false: Sync() does nothing (tests only). A file that
  // has `max_bytes` is followed by the next.
  static absl::StatusOr<std::unique_ptr<SegmentLog>> Open(const std::string& folder,
                                                          bool durable = true,
                                                          uint64_t max_bytes = kMaxSegmentBytes);
  ~SegmentLog();

  // RESOURCE_EXHAUSTED when the disk is full: the record is not there then.
  absl::StatusOr<RecordPlace> Append(const std::string& payload);
  absl::Status Sync();
  absl::StatusOr<std::string> Read(const RecordPlace& place);

  // The files that are there, oldest first; records are appended to the newest.
  std::vector<uint32_t> List() const;
  uint32_t newest() const { return segment_; }
  // Deletes an older file, if it is there.
  void Remove(uint32_t segment);

 private:
  SegmentLog(std::string folder, bool durable, uint64_t max_bytes)
      : folder_(std::move(folder)), durable_(durable), max_bytes_(max_bytes) {}
  std::string PathOf(uint32_t segment) const;
  absl::Status OpenSegment(uint32_t segment);
  absl::Status CutTornTail();

  const std::string folder_;
  const bool durable_;
  const uint64_t max_bytes_;
  int file_ = -1;  // the newest segment
  uint32_t segment_ = 0;
  uint64_t size_ = 0;
  bool unsynced_ = false;
};

}  // namespace rein::services
