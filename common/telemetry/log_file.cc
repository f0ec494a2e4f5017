#include "common/telemetry/log_file.h"

#include <cerrno>
#include <cstdio>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <fcntl.h>
#include <spdlog/details/log_msg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/files/append_whole.h"
#include "common/telemetry/log.h"

namespace rein::telemetry {
namespace {

int OpenToAppend(const std::string& path, int more = 0) {
  return open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | more, 0644);
}

bool SameFile(int a, int b) {
  struct stat one, other;
  return fstat(a, &one) == 0 && fstat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

}  // namespace

absl::StatusOr<std::shared_ptr<LogFile>> LogFile::Open(const std::string& path, uint64_t max_bytes) {
  const int file = OpenToAppend(path);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  return std::shared_ptr<LogFile>(new LogFile(path, max_bytes, file));
}

LogFile::~LogFile() { close(file_); }

void LogFile::sink_it_(const spdlog::details::log_msg& message) {
  spdlog::memory_buf_t line;
  formatter_->format(message, line);
  struct stat now;
  // Asked each time: others may write to the file too.
  if (fstat(file_, &now) == 0 && S_ISREG(now.st_mode) && now.st_size > 0 &&
      static_cast<uint64_t>(now.st_size) + line.size() > max_bytes_) {
    BeginAnew();
  }
  files::AppendWhole(file_, path_, {line.data(), line.size()}).IgnoreError();  // nobody to tell
}

// The old file gets its second name before the new one takes the first: a reader finds both at any time.
void LogFile::BeginAnew() {
  const std::string next = path_ + ".new";
  unlink(next.c_str());
  const int file = OpenToAppend(next, O_EXCL);
  if (file < 0) return;  // the old file then grows on
  for (int i = kOlderLogFiles - 1; i >= 1; --i) {
    rename(absl::StrCat(path_, ".", i).c_str(), absl::StrCat(path_, ".", i + 1).c_str());
  }
  const bool kept = link(path_.c_str(), absl::StrCat(path_, ".1").c_str()) == 0 ||
                    rename(path_.c_str(), absl::StrCat(path_, ".1").c_str()) == 0;  // no hard links on this disk
  if (!kept || rename(next.c_str(), path_.c_str()) != 0) {
    close(file);
    unlink(next.c_str());
    return;
  }
  for (int standard : {STDOUT_FILENO, STDERR_FILENO}) {
    if (SameFile(standard, file_)) dup2(file, standard);
  }
  close(file_);
  file_ = file;
}

}  // namespace rein::telemetry
