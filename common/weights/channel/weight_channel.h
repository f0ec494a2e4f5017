// WeightChannel carries one version of the weights from the trainer to every receiver.
//
//   REIN_ASSIGN_OR_RETURN(auto channel, GrpcWeightChannel());
//   std::vector<Outcome> outcomes = channel->Send(publication, receivers);
//
// A receiver that fails or is late is left out and named; the others are not held up beyond the
// deadline. Thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/weights/weight_plan.h"
#include "common/weights/weight_receiver.h"
#include "rein/v1/policy.pb.h"
#include "rein/v1/weights.pb.h"

namespace rein::weights {

struct Publication {
  v1::Fence fence;  // of the publish; actor_epoch is replaced by each receiver's
  Version version;
  WeightPlan plan;
  std::vector<uint64_t> digests;  // of each parameter, in plan order
  // plan.arena_bytes that must not change during Send: in host memory for gRPC, on `device` for NCCL and IPC.
  void* arena = nullptr;
  int device = 0;
  absl::Duration deadline;
  InFlight in_flight = InFlight::kContinue;
};

struct Receiver {
  std::string name;
  std::string address;  // host:port
  uint64_t actor_epoch = 0;
};

struct Outcome {
  std::string name;
  absl::Status status;  // OK: committed with the same digest
};

// One that is not known, from a newer peer, is kContinue.
InFlight FromProto(v1::InFlightPolicy policy);
v1::InFlightPolicy ToProto(InFlight policy);

class WeightChannel {
 public:
  virtual ~WeightChannel() = default;

  // One outcome for each receiver, in order.
  virtual std::vector<Outcome> Send(const Publication& publication,
                                    const std::vector<Receiver>& receivers) = 0;
};

// Chunks on a gRPC stream, one stream for each receiver, all at once.
std::unique_ptr<WeightChannel> GrpcWeightChannel();

// For receivers on the sender's own GPU: they map its memory (CUDA IPC) and copy from there. UNIMPLEMENTED as the outcome of
// one that cannot.
std::unique_ptr<WeightChannel> IpcWeightChannel();

// ncclBroadcast from rank 0 of a communicator of sender and receivers. The communicator is kept while the
// membership stays the same. When a broadcast misses its share of the deadline, all abort, and the bytes
// go again to those that still answer.
std::unique_ptr<WeightChannel> NcclWeightChannel();

}  // namespace rein::weights
