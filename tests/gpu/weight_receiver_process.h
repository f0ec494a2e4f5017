// A process that receives weights on GPU 0, for tests of the NCCL channel: the test binary called again.

#pragma once

#include <string>

#include "common/weights/channel/weight_channel.h"
#include "common/weights/registry.h"
#include "tests/gpu/test_process.h"

namespace rein::gpu {

// The parameters that the receiver and the tests agree on.
weights::Registry TestRegistry();

// Body of the process: prints its address, then serves until its standard input ends. For each line that
// comes in it prints "LINEAGE.NUMBER DIGEST" of the weights in use.
int WeightReceiverMain();

class WeightReceiverProcess {
 public:
  explicit WeightReceiverProcess(const std::string& name);

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
