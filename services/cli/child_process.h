// ChildProcess is one program that the supervisor runs: in its own process group, its output in a
// log file, killed by the kernel when the supervisor dies.
//
// Call from one thread only: the kernel ties the child's life to the thread that started it.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include <sys/types.h>

namespace rein::cli {

struct ChildCommand {
  std::string program;  // path
  std::vector<std::string> arguments;
  std::map<std::string, std::string> environment;  // added to this process's
  std::string log_file;                            // standard output and error are appended here
};

class ChildProcess {
 public:
  absl::Status Start(const ChildCommand& command);
  // To the whole process group; nothing when it does not run.
  void Signal(int signal);
  // True when the child has ended since the last call; `exit_code` is 128 + signal for a signal.
  bool Reap(int& exit_code);

  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

}  // namespace rein::cli
