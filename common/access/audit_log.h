// AuditLog is an append-only file of who did what: one JSON object a line, each with the SHA-256 of the
// line before it, so that a line that was changed, taken out or put in is found.
//
//   {"number":7,"time":"2026-11-26T12:00:00Z","who":"user ada","action":"Cancel","object":"digits",
//    "result":"OK","previous":"9c1e...","hash":"04ab..."}
//
// What the chain cannot show is a cut tail: keep `head()` (rein doctor prints it) elsewhere. Each line is
// synced to disk before Append() returns. Thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/sync/clock.h"

namespace rein::access {

struct AuditEntry {
  std::string who;     // Caller::Name()
  std::string action;  // the method
  std::string object;  // a job's name, ...
  std::string result;  // OK, PERMISSION_DENIED, ...
};

class AuditLog {
 public:
  // Goes on after the last line. DATA_LOSS when what is there does not hold together. A line that was
  // torn by a crash is cut off. `clock` must outlive the log.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(const std::string& path,
                                                        const sync::Clock& clock);
  ~AuditLog();

  // RESOURCE_EXHAUSTED when the disk is full; the log then ends as it did.
  absl::Status Append(const AuditEntry& entry);
  // Digest of the newest line; of nothing: 64 zeros.
  std::string head();

 private:
  AuditLog(int file, std::string path, uint64_t number, std::string head, const sync::Clock& clock)
      : file_(file), path_(std::move(path)), clock_(clock), number_(number), head_(std::move(head)) {}

  const int file_;
  const std::string path_;
  const sync::Clock& clock_;
  std::mutex mutex_;
  uint64_t number_;
  std::string head_;
};

struct AuditSummary {
  uint64_t lines = 0;
  std::string head;
  uint64_t whole_bytes = 0;  // a torn line at the end counts for nothing
};

// DATA_LOSS names the first line that does not follow from the one before it; NOT_FOUND without a file.
absl::StatusOr<AuditSummary> VerifyAuditLog(const std::string& path);

}  // namespace rein::access
