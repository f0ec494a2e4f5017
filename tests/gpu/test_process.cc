#include "tests/gpu/test_process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

namespace rein::gpu {

TestProcess::TestProcess(const std::string& host, std::vector<std::string> arguments) {
  int in[2], out[2];
  if (pipe(in) != 0 || pipe(out) != 0) std::abort();
  arguments.insert(arguments.begin(), "rein-gpu-tests");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(in[0], 0);
    dup2(out[1], 1);
    for (int fd : {in[0], in[1], out[0], out[1]}) close(fd);
    if (!host.empty()) setenv("NCCL_HOSTID", host.c_str(), 1);
    setenv("NCCL_SOCKET_IFNAME", "lo", 1);
    setenv("NCCL_IB_DISABLE", "1", 1);
    execv("/proc/self/exe", argv.data());
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  to_child_ = in[1];
  from_child_ = out[0];
}

TestProcess::~TestProcess() {
  close(to_child_);
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  close(from_child_);
}

void TestProcess::Signal(int signal) { kill(pid_, signal); }

bool TestProcess::Write(const std::string& line) {
  const std::string text = line + "\n";
  return write(to_child_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

std::string TestProcess::ReadLine() {
  std::string line;
  char c;
  while (read(from_child_, &c, 1) == 1 && c != '\n') line.push_back(c);
  return line;
}

}  // namespace rein::gpu
