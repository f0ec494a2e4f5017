// LogFile is where a log's lines go when they go to a file: one of bounded size. Once FILE would pass `max_bytes` it
// becomes FILE.1, that FILE.2, and so on; the oldest of kOlderLogFiles is deleted. FILE always exists, and no line is lost or
// torn apart. Standard output and error move along when they went to the same file, so that the last words of a library
// land there too. A line that a full disk has no room for is dropped: the log must not stop the service.
//
// Internal to telemetry.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <string>

#include "absl/status/statusor.h"
#include <spdlog/sinks/base_sink.h>

namespace rein::telemetry {

class LogFile final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // NOT_FOUND or PERMISSION_DENIED when the file cannot be appended to.
  static absl::StatusOr<std::shared_ptr<LogFile>> Open(const std::string& path, uint64_t max_bytes);
  ~LogFile() override;

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}

 private:
  LogFile(std::string path, uint64_t max_bytes, int file) : path_(std::move(path)), max_bytes_(max_bytes), file_(file) {}
  void BeginAnew();

  const std::string path_;
  const uint64_t max_bytes_;
  int file_;
};

}  // namespace rein::telemetry
