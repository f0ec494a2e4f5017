#include "services/cli/local_command.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "services/cli/exit_code.h"
#include "services/cli/output.h"

namespace rein::cli {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr absl::Duration kTendEvery = absl::Milliseconds(200);
constexpr absl::Duration kDownPatience = absl::Seconds(20);

bool Alive(int pid) { return pid > 0 && kill(pid, 0) == 0; }

// Runs until a stop signal; `report` gets one line of text when all is up, or the error.
int Supervise(const LocalOptions& options, const std::function<void(const std::string&)>& report) {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);  // before any thread
  sync::RealClock clock;
  Supervisor supervisor(options, clock);
  absl::Status started = supervisor.Start(kPatience);
  if (!started.ok()) {
    supervisor.Stop();
    report(absl::StrCat("error: ", std::string(started.message()), "\n"));
    return ExitCodeOf(started);
  }
  report(supervisor.Describe());
  const timespec pause = absl::ToTimespec(kTendEvery);
  while (true) {
    int signal = sigtimedwait(&signals, nullptr, &pause);
    if (signal == SIGTERM || signal == SIGINT) break;
    supervisor.Tend();
  }
  supervisor.Stop();
  return kExitOk;
}

// Forks the supervisor into the background and waits for its report.
int SuperviseDetached(const LocalOptions& options) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return PrintError(absl::ErrnoToStatus(errno, "pipe"));
  pid_t pid = fork();
  if (pid < 0) return PrintError(absl::ErrnoToStatus(errno, "fork"));
  if (pid == 0) {
    close(pipe_ends[0]);
    setsid();
    std::error_code error;
    fs::create_directories(options.state + "/logs", error);
    int nothing = open("/dev/null", O_RDONLY);
    int log =
        open((options.state + "/logs/supervisor.log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(nothing, STDIN_FILENO);
    if (log >= 0) {
      dup2(log, STDOUT_FILENO);
      dup2(log, STDERR_FILENO);
    }
    int code = Supervise(options, [&](const std::string& text) {
      ssize_t written = write(pipe_ends[1], text.data(), text.size());
      if (written < 0) std::cerr << text;
      close(pipe_ends[1]);
    });
    _exit(code);
  }
  close(pipe_ends[1]);
  std::string report;
  char buffer[4096];
  for (ssize_t got; (got = read(pipe_ends[0], buffer, sizeof(buffer))) > 0;) {
    report.append(buffer, static_cast<size_t>(got));
  }
  close(pipe_ends[0]);
  if (!report.empty() && report.rfind("error: ", 0) != 0) {
    Print(report);
    Hint("stop with: rein down\n");
    return kExitOk;
  }
  int status = 0;
  waitpid(pid, &status, 0);
  Hint(report.empty() ? "error: the supervisor died; see " + options.state + "/logs\n" : report);
  return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : kExitFailed;
}

// What the services would not notice by themselves.
absl::Status CheckTogether(const LocalOptions& options) {
  const std::pair<const char*, const std::vector<std::string>*> lists[] = {
      {"--device", &options.devices}, {"--trainer-device", &options.trainer_devices},
      {"--rollout-device", &options.rollout_devices}, {"--reference-device", &options.reference_devices}};
  for (const auto& [flag, devices] : lists) {
    if (devices->size() <= 1 || devices->size() % static_cast<size_t>(options.groups) == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(flag, " names ", devices->size(), " devices, which cannot be dealt evenly to ", options.groups,
                                                   " groups: give a multiple of ", options.groups, ", or one that all share"));
  }
  if (options.controllers == 1 || options.store.rfind("postgres", 0) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--controllers ", options.controllers,
                                                 ": several want --store postgres://USER@HOST/DATABASE; one file has one"));
}

}  // namespace

std::string ProgramFolder() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path().string();
}

int RunUp(LocalOptions options, bool foreground) {
  if (absl::Status wrong = CheckTogether(options); !wrong.ok()) return PrintError(wrong);
  options.state = fs::absolute(options.state).string();
  if (absl::StatusOr<Context> context = ReadContext(); context.ok() && Alive(context->supervisor)) {
    Print(absl::StrCat("up already   controller ", context->controller, "   page ", context->Url(),
                       "\n"));
    return kExitOk;
  }
  RemoveContext();
  if (!foreground) return SuperviseDetached(options);
  return Supervise(options, [](const std::string& text) { Print(text); });
}

int RunUpCheck(LocalOptions options) {
  options.state = fs::absolute(options.state).string();
  sync::RealClock clock;
  absl::Status checked = CheckTogether(options);
  if (checked.ok()) checked = Supervisor(options, clock).Check();
  if (!checked.ok()) return PrintError(checked);
  Print("rein up: flags and files are good\n");
  return kExitOk;
}

int RunDown() {
  absl::StatusOr<Context> context = ReadContext();
  if (!context.ok() || !Alive(context->supervisor)) {
    RemoveContext();
    Hint("nothing is up\n");
    return kExitOk;
  }
  kill(context->supervisor, SIGTERM);
  sync::RealClock clock;
  absl::Time until = clock.Now() + kDownPatience;
  while (Alive(context->supervisor) && clock.Now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  if (Alive(context->supervisor)) kill(context->supervisor, SIGKILL);  // its children die with it
  RemoveContext();
  Print("down\n");
  return kExitOk;
}

}  // namespace rein::cli
