// The test binary called again, as another process on the same GPU: killed when its object goes.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace rein::gpu {

class TestProcess {
 public:
  // `host` is what NCCL takes for the process's host: ranks that share a GPU must be on separate ones. Empty: the real one.
  TestProcess(const std::string& host, std::vector<std::string> arguments);
  ~TestProcess();
  TestProcess(const TestProcess&) = delete;
  TestProcess& operator=(const TestProcess&) = delete;

  void Signal(int signal);
  // To its standard input; false when it is gone.
  bool Write(const std::string& line);
  // Of its standard output; empty when it is gone.
  std::string ReadLine();

 private:
  pid_t pid_ = -1;
  int to_child_ = -1, from_child_ = -1;
};

}  // namespace rein::gpu
