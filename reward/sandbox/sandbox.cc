#include "reward/sandbox/sandbox.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/status/status_macros.h"
#include "reward/sandbox/records.h"

namespace rein::reward::sandbox {
namespace {

// Beyond the wall time of a program: the launcher's own work.
constexpr absl::Duration kMargin = absl::Seconds(5);
constexpr size_t kMaxReportBytes = size_t{1} << 30;

// A file descriptor that is closed, above those that a child gets.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {
    if (fd_ < 0 || fd_ > 9) return;
    fd_ = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    close(fd);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { Close(); }

  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status Failure(const char* doing) {
  return absl::InternalError(absl::StrCat("sandbox: ", doing, ": ", std::strerror(errno)));
}

// A file in memory with this content, open for reading only.
absl::StatusOr<Descriptor> MemoryFile(std::string_view content) {
  Descriptor file(memfd_create("sandbox", MFD_CLOEXEC));
  if (file.get() < 0) return Failure("memfd_create");
  while (!content.empty()) {
    ssize_t count = write(file.get(), content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return Failure("write");
    content.remove_prefix(static_cast<size_t>(count));
  }
  Descriptor reading(
      open(absl::StrCat("/proc/self/fd/", file.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (reading.get() < 0) return Failure("open");
  return reading;
}

struct Pipe {
  Descriptor read, write;
};

absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Failure("pipe");
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

std::string Orders(const Program& program, bool weak) {
  std::string orders;
  for (const std::string& word : program.command) PutRecord(orders, "command", word);
  for (const auto& [name, content] : program.files) PutRecord(orders, "file:" + name, content);
  for (const std::string& name : program.keep) PutRecord(orders, "keep", name);
  auto number = [&](const char* key, int64_t value) {
    PutRecord(orders, key, absl::StrCat(value));
  };
  number("processor_ms", absl::ToInt64Milliseconds(program.limits.processor));
  number("wall_ms", absl::ToInt64Milliseconds(program.limits.wall));
  number("memory_bytes", static_cast<int64_t>(program.limits.memory_bytes));
  number("processes", program.limits.processes);
  number("weak", weak);
  return orders;
}

absl::Status Check(const Program& program) {
  if (program.command.empty()) return absl::InvalidArgumentError("sandbox: no command");
  auto plain = [](const std::string& name) {
    return !name.empty() && name != "." && name != ".." && !absl::StrContains(name, '/') &&
           !absl::StrContains(name, '\0');
  };
  for (const auto& file : program.files) {
    if (!plain(file.first))
      return absl::InvalidArgumentError(absl::StrCat("sandbox: bad file name '", file.first, "'"));
  }
  for (const std::string& name : program.keep) {
    if (!plain(name))
      return absl::InvalidArgumentError(absl::StrCat("sandbox: bad file name '", name, "'"));
  }
  return absl::OkStatus();
}

// The launcher as a child process.
class Launch {
 public:
  ~Launch() {
    if (child_ > 0) End(SIGKILL);
  }

  absl::Status Start(const std::string& launcher, const Program& program, bool weak) {
    REIN_ASSIGN_OR_RETURN(Descriptor input, MemoryFile(program.input));
    REIN_ASSIGN_OR_RETURN(Descriptor orders, MemoryFile(Orders(program, weak)));
    std::array<Pipe, 3> pipes;
    for (Pipe& pipe : pipes) {
      REIN_ASSIGN_OR_RETURN(pipe, MakePipe());
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const int fds[] = {input.get(), pipes[0].write.get(), pipes[1].write.get(), orders.get(),
                       pipes[2].write.get()};
    for (int i = 0; i < 5; ++i) posix_spawn_file_actions_adddup2(&actions, fds[i], i);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    char* arguments[] = {const_cast<char*>("rein-sandbox"), nullptr};
    const char* without =
        std::getenv("REIN_SANDBOX_WITHOUT_NAMESPACES");  // how tests see such a host
    std::string word =
        absl::StrCat("REIN_SANDBOX_WITHOUT_NAMESPACES=", without == nullptr ? "" : without);
    char* environment[] = {without == nullptr ? nullptr : word.data(), nullptr};
    const int error =
        posix_spawn(&child_, launcher.c_str(), &actions, &attributes, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) {
      child_ = -1;
      return absl::FailedPreconditionError(
          absl::StrCat("cannot start ", launcher, ": ", std::strerror(error)));
    }
    for (size_t i = 0; i < 3; ++i) {
      streams_[i].fd = std::move(pipes[i].read);
    }
    return absl::OkStatus();
  }

  // Reads until all streams end. False: the program was too loud, or the launcher hung.
  bool Read(const Limits& limits) {
    const absl::Time deadline = absl::Now() + limits.wall + kMargin;
    while (true) {
      std::vector<pollfd> waits;
      std::vector<Stream*> waiting;
      for (Stream& stream : streams_) {
        if (stream.fd.get() < 0) continue;
        waits.push_back({stream.fd.get(), POLLIN, 0});
        waiting.push_back(&stream);
      }
      if (waits.empty()) return true;
      const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
      if (left <= 0) return hung_ = true, false;
      if (poll(waits.data(), waits.size(), static_cast<int>(std::min<int64_t>(left, 1'000'000))) <
              0 &&
          errno != EINTR)
        return hung_ = true, false;
      for (size_t i = 0; i < waits.size(); ++i) {
        if (waits[i].revents != 0) Take(*waiting[i]);
      }
      if (output().size() + errors().size() > limits.output_bytes) return false;
      if (report().size() > kMaxReportBytes) return hung_ = true, false;
    }
  }

  // Ends the launcher, which takes everything with it.
  void End(int signal) {
    kill(child_, signal);
    int status = 0;
    while (waitpid(child_, &status, 0) < 0 && errno == EINTR) continue;
    child_ = -1;
  }

  std::string& output() { return streams_[0].text; }
  std::string& errors() { return streams_[1].text; }
  std::string& report() { return streams_[2].text; }
  bool hung() const { return hung_; }

 private:
  struct Stream {
    Descriptor fd;
    std::string text;
  };

  static void Take(Stream& stream) {
    char buffer[65536];
    ssize_t count = read(stream.fd.get(), buffer, sizeof(buffer));
    if (count > 0)
      stream.text.append(buffer, static_cast<size_t>(count));
    else if (count == 0 || errno != EINTR)
      stream.fd.Close();
  }

  pid_t child_ = -1;
  std::array<Stream, 3> streams_;
  bool hung_ = false;
};

absl::Status TakeRecord(std::string_view key, std::string_view value, Outcome& outcome) {
  const std::string text(value);
  if (key == "wrong") return absl::InternalError(absl::StrCat("sandbox: ", text));
  if (key == "forbidden") return absl::FailedPreconditionError(text);
  if (key == "namespaces") outcome.namespaces = text == "1";
  if (key == "refused") outcome.refused.push_back(text);
  if (key == "end") outcome.end = End::kTooLong;
  if (key.substr(0, 5) == "file:") outcome.files[std::string(key.substr(5))] = text;
  if (key == "exit" || key == "signal") {
    outcome.end = key == "exit" ? End::kExited : End::kKilled;
    if (!absl::SimpleAtoi(text, &outcome.code)) return absl::InternalError("sandbox: bad report");
  }
  return absl::OkStatus();
}

std::string DefaultLauncher() {
  if (const char* given = std::getenv("REIN_SANDBOX")) return given;
  char self[4096];
  ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
  std::string_view path(self, length > 0 ? static_cast<size_t>(length) : 0);
  return absl::StrCat(std::string(path.substr(0, path.rfind('/') + 1)), "rein-sandbox");
}

}  // namespace

absl::StatusOr<Sandbox> Sandbox::Open(const SandboxOptions& options) {
  SandboxOptions resolved = options;
  if (resolved.launcher.empty()) resolved.launcher = DefaultLauncher();
  if (access(resolved.launcher.c_str(), X_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the sandbox's launcher ", resolved.launcher, " is not there"));
  }
  Sandbox sandbox(std::move(resolved));
  Program nothing;
  nothing.command = {"true"};
  absl::StatusOr<Outcome> outcome = sandbox.Run(nothing);
  if (outcome.ok()) return sandbox;
  return absl::FailedPreconditionError(absl::StrCat(
      "this host gives no sandbox",
      options.weak ? ": " : " with namespaces (isolation: weak would do without them): ",
      std::string(outcome.status().message())));
}

absl::StatusOr<Outcome> Sandbox::Run(const Program& program) const {
  REIN_RETURN_IF_ERROR(Check(program));
  Launch launch;
  REIN_RETURN_IF_ERROR(launch.Start(options_.launcher, program, options_.weak));
  Outcome outcome;
  const bool whole = launch.Read(program.limits);
  if (!whole && launch.hung()) return absl::InternalError("sandbox: the launcher hangs");
  launch.End(whole ? 0 : SIGTERM);
  outcome.output = launch.output().substr(0, program.limits.output_bytes);
  outcome.errors = launch.errors().substr(0, program.limits.output_bytes - outcome.output.size());
  if (!whole) {
    outcome.end = End::kTooLoud;
    return outcome;
  }
  if (launch.report().empty())
    return absl::InternalError("sandbox: the launcher ended without a report");
  std::string_view rest = launch.report();
  while (auto key = TakeText(rest)) {
    auto value = TakeText(rest);
    if (!value) return absl::InternalError("sandbox: a torn report");
    REIN_RETURN_IF_ERROR(TakeRecord(*key, *value, outcome));
  }
  return outcome;
}

absl::StatusOr<Sandbox> HostSandbox(bool weak) {
  static const auto& full = *new absl::StatusOr<Sandbox>(Sandbox::Open({}));
  if (!weak || full.ok()) return full;
  static const auto& weaker = *new absl::StatusOr<Sandbox>(Sandbox::Open({.weak = true}));
  return weaker;
}

}  // namespace rein::reward::sandbox
