// Ranks of one trainer that share GPU 0: the test process is rank 0, the others are processes of their own.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/parallel/process_group.h"
#include "tests/gpu/test_process.h"

namespace rein::gpu {

// Does the named task on a rank; the answer is one line of text.
//   collectives   "ok", or the first thing that is wrong
//   train         losses and the digest of the weights after two updates
//   hang          sums until that fails: the error
std::string RunTask(const std::string& task, parallel::ProcessGroup& group);

// Body of a rank's process: RANK SIZE ADDRESS TIMEOUT_SECONDS TASK. Prints "joined", then the answer.
int RankMain(int argc, char** argv);

class RankGroup {
 public:
  // Starts the others and joins them; aborts the test program when that fails.
  RankGroup(int size, const std::string& task, absl::Duration timeout = absl::Minutes(1));

  parallel::ProcessGroup& group() { return *group_; }
  TestProcess& Other(int rank) { return *others_[static_cast<size_t>(rank) - 1]; }

 private:
  std::vector<std::unique_ptr<TestProcess>> others_;
  std::unique_ptr<parallel::ProcessGroup> group_;
};

}  // namespace rein::gpu
