// ReceiverClient makes the WeightService calls of one transfer to one receiver. Blocking; one thread.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/weights/channel/ipc_memory.h"
#include "common/weights/channel/weight_channel.h"
#include "rein/v1/weights.grpc.pb.h"

namespace rein::weights {

// What will carry the bytes: a communicator, or memory that the receiver maps; neither: the gRPC stream.
struct WirePlan {
  std::string nccl_id;
  int rank = 0;
  int size = 0;
  IpcMemory ipc;
};

class ReceiverClient {
 public:
  // Both must outlive the client. Every call ends at `deadline`.
  ReceiverClient(const Publication& publication, const Receiver& receiver, absl::Time deadline);

  absl::Status Begin(const WirePlan& wire = {});
  absl::Status SendChunks();
  // DATA_LOSS when the receiver computed another digest.
  absl::Status Commit();
  // OK when the receiver answered within `patience`.
  absl::Status Abort(absl::Duration patience);

 private:
  template <typename Request>
  void Address(Request* request, const char* stage) const;

  const Publication& publication_;
  const Receiver& receiver_;
  const absl::Time deadline_;
  std::unique_ptr<v1::WeightService::Stub> stub_;
};

// Makes `transfer` to every receiver at once, each with a client of its own; aborts where it fails. One outcome for each,
// in order.
std::vector<Outcome> SendToEach(const Publication& publication, const std::vector<Receiver>& receivers,
                                const std::function<absl::Status(ReceiverClient&)>& transfer);

inline constexpr absl::Duration kAbortPatience = absl::Seconds(2);  // of an abort that is not answered

}  // namespace rein::weights
