// Log writes one line per event, to be read by people and by grep:
//
//   2026-11-24T06:40:00.123Z INFO role=trainer actor=trainer-0 job=digits msg="loaded"
//   parameters=3200000
//
//   REIN_ASSIGN_OR_RETURN(auto log, Log::Create({.role = "trainer", .actor = "trainer-0"}));
//   log->Info("loaded", {{"parameters", absl::StrCat(n)}});
//
// Each line is written at once. A file is bounded: once it is full it becomes FILE.1, that FILE.2, and so on. Thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace spdlog {
class logger;
}  // namespace spdlog

namespace rein::telemetry {

inline constexpr int kOlderLogFiles = 4;  // FILE.1 is the newest of them

struct LogOptions {
  std::string role;
  std::string actor;
  std::string file;  // empty: standard error
  uint64_t max_bytes = 16 << 20;  // of the file, and of each of the kOlderLogFiles before it
};

class Log {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;

  // NOT_FOUND or PERMISSION_DENIED when the file cannot be appended to.
  static absl::StatusOr<std::unique_ptr<Log>> Create(LogOptions options);
  ~Log();

  void Info(const std::string& message, const Fields& fields = {});
  void Warn(const std::string& message, const Fields& fields = {});
  void Error(const std::string& message, const Fields& fields = {});

  // Stands in every line from now on; empty: no job.
  void SetJob(const std::string& job);

 private:
  Log(LogOptions options, std::shared_ptr<spdlog::logger> logger);
  std::string Line(const std::string& message, const Fields& fields) const;

  const LogOptions options_;
  std::shared_ptr<spdlog::logger> logger_;
  mutable std::mutex mutex_;
  std::string job_;
};

}  // namespace rein::telemetry
