#include "services/cli/child_process.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace rein::cli {
namespace {

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> Environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> texts;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string text = *entry;
    if (added.count(text.substr(0, text.find('='))) == 0) texts.push_back(text);
  }
  for (const auto& [name, value] : added) texts.push_back(absl::StrCat(name, "=", value));
  return texts;
}

}  // namespace

absl::Status ChildProcess::Start(const ChildCommand& command) {
  std::vector<std::string> arguments = {command.program};
  arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
  std::vector<std::string> environment = Environment(command.environment);
  std::vector<char*> argv = Pointers(arguments), envp = Pointers(environment);
  int log = open(command.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", command.log_file));
  if (access(command.program.c_str(), X_OK) != 0) {
    close(log);
    return absl::NotFoundError(absl::StrCat("there is no program ", command.program));
  }
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid == 0) {  // only calls that are safe after fork, until exec
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  int reason = errno;
  close(log);
  if (pid < 0) return absl::ErrnoToStatus(reason, absl::StrCat("cannot start ", command.program));
  pid_ = pid;
  return absl::OkStatus();
}

void ChildProcess::Signal(int signal) {
  if (pid_ <= 0) return;
  kill(-pid_, signal);
  kill(pid_, signal);  // its group may not exist yet
}

bool ChildProcess::Reap(int& exit_code) {
  if (pid_ <= 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
  kill(-pid_, SIGKILL);  // what it left behind in its group
  pid_ = 0;
  exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return true;
}

}  // namespace rein::cli
