#include "common/telemetry/log.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "common/status/status_macros.h"
#include "common/telemetry/log_file.h"

namespace rein::telemetry {
namespace {

// Quoted when it would not read back as one word.
std::string Value(const std::string& text) {
  if (!text.empty() && text.find_first_of(" \t\r\n\"\\=") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (c == '\n') {
      quoted += "\\n";
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Log>> Log::Create(LogOptions options) {
  spdlog::sink_ptr sink;
  if (options.file.empty()) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    REIN_ASSIGN_OR_RETURN(sink, LogFile::Open(options.file, options.max_bytes));
  }
  auto logger = std::make_shared<spdlog::logger>("rein", std::move(sink));
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %v", spdlog::pattern_time_type::utc);
  logger->flush_on(spdlog::level::info);
  return std::unique_ptr<Log>(new Log(std::move(options), std::move(logger)));
}

Log::Log(LogOptions options, std::shared_ptr<spdlog::logger> logger)
    : options_(std::move(options)), logger_(std::move(logger)) {}
Log::~Log() = default;

std::string Log::Line(const std::string& message, const Fields& fields) const {
  std::string line = absl::StrCat("role=", options_.role, " actor=", options_.actor);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!job_.empty()) absl::StrAppend(&line, " job=", job_);
  }
  absl::StrAppend(&line, " msg=", Value(message));
  for (const auto& [key, value] : fields) absl::StrAppend(&line, " ", key, "=", Value(value));
  return line;
}

void Log::Info(const std::string& message, const Fields& fields) {
  logger_->info("INFO {}", Line(message, fields));
}

void Log::Warn(const std::string& message, const Fields& fields) {
  logger_->warn("WARN {}", Line(message, fields));
}

void Log::Error(const std::string& message, const Fields& fields) {
  logger_->error("ERROR {}", Line(message, fields));
}

void Log::SetJob(const std::string& job) {
  std::lock_guard<std::mutex> lock(mutex_);
  job_ = job;
}

}  // namespace rein::telemetry
