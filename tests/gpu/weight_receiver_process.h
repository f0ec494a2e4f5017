// A process that receives weights on a GPU, for tests and benchmarks of the channels between GPUs: the binary called
// again, with --weight-receiver in front of WeightReceiverMain()'s arguments.

#pragma once

#include <string>

#include "common/weights/channel/weight_channel.h"
#include "common/weights/registry.h"
#include "tests/gpu/test_process.h"

namespace rein::gpu {

// The parameters that the receiver and the tests agree on.
weights::Registry TestRegistry();

// Body of the process: prints its address, then serves until its standard input ends. For each line that
// comes in it prints "LINEAGE.NUMBER DIGEST" of the weights in use. The weights are those of TestRegistry() on GPU 0, or,
// with arguments FOLDER and GPU, of a model there.
int WeightReceiverMain(int argc, char** argv);

class WeightReceiverProcess {
 public:
  // `host` as in TestProcess; `arguments`: of WeightReceiverMain().
  explicit WeightReceiverProcess(const std::string& host, const std::vector<std::string>& arguments = {});

  weights::Receiver Address() const { return {name_, address_, 1}; }
  void Freeze();
  void Thaw();
  // "LINEAGE.NUMBER DIGEST", or "none".
  std::string InUse();

 private:
  const std::string name_;
  TestProcess process_;
  const std::string address_;
};

}  // namespace rein::gpu
