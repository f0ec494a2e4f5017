#include "common/access/audit_log.h"

#include <cerrno>
#include <fstream>

#include "absl/strings/str_cat.h"
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "common/access/user_tokens.h"
#include "common/files/append_whole.h"
#include "common/status/status_macros.h"

namespace rein::access {
namespace {

using nlohmann::ordered_json;

const std::string kNothing(64, '0');

std::string Dump(const ordered_json& line) {
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace

absl::StatusOr<AuditSummary> VerifyAuditLog(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  AuditSummary summary{.head = kNothing};
  for (std::string text; std::getline(in, text);) {
    if (in.eof()) break;  // no newline: torn
    ordered_json line = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    const std::string where = absl::StrCat(path, ":", summary.lines + 1, ": ");
    if (!line.is_object() || !line.contains("hash") || !line["hash"].is_string()) {
      return absl::DataLossError(where + "is no line of an audit log");
    }
    const std::string hash = line["hash"];
    line.erase("hash");
    if (line.value("previous", "") != summary.head || line.value("number", 0ULL) != summary.lines + 1) {
      return absl::DataLossError(where + "does not follow the line before it");
    }
    if (DigestOf(Dump(line)) != hash) return absl::DataLossError(where + "was changed");
    summary.head = hash;
    ++summary.lines;
    summary.whole_bytes += text.size() + 1;
  }
  return summary;
}

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(const std::string& path,
                                                         const sync::Clock& clock) {
  AuditSummary found{.head = kNothing};
  if (::access(path.c_str(), F_OK) == 0) {
    REIN_ASSIGN_OR_RETURN(found, VerifyAuditLog(path));
    if (truncate(path.c_str(), static_cast<off_t>(found.whole_bytes)) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot cut ", path));
    }
  }
  int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  return std::unique_ptr<AuditLog>(new AuditLog(file, path, found.lines, found.head, clock));
}

AuditLog::~AuditLog() { close(file_); }

absl::Status AuditLog::Append(const AuditEntry& entry) {
  std::lock_guard<std::mutex> lock(mutex_);
  ordered_json line = {
      {"number", number_ + 1},
      {"time", absl::FormatTime(absl::RFC3339_sec, clock_.Now(), absl::UTCTimeZone())},
      {"who", entry.who},
      {"action", entry.action},
      {"object", entry.object},
      {"result", entry.result},
      {"previous", head_}};
  // Text that is no UTF-8 is replaced: the digest is of what a reader will parse.
  line = ordered_json::parse(Dump(line));
  const std::string hash = DigestOf(Dump(line));
  line["hash"] = hash;
  const std::string text = Dump(line) + "\n";
  REIN_RETURN_IF_ERROR(files::AppendWhole(file_, path_, text));
  if (fdatasync(file_) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot sync ", path_));
  ++number_;
  head_ = hash;
  return absl::OkStatus();
}

std::string AuditLog::head() {
  std::lock_guard<std::mutex> lock(mutex_);
  return head_;
}

}  // namespace rein::access
