// BroadcastReceiver takes a broadcast into device memory on a thread of its own, so that BeginWeights can
// answer before the communicator stands. Keeps the communicator for the next version. Thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/nccl/nccl_comm.h"

namespace rein::weights {

class BroadcastReceiver {
 public:
  ~BroadcastReceiver();

  // Aborts a transfer that is under way. `arena` must stay until Wait() or Abort() returned.
  void Start(const nccl::NcclPlace& place, void* arena, uint64_t bytes, absl::Time deadline);
  // How the transfer ended; FAILED_PRECONDITION when none was started.
  absl::Status Wait();
  void Abort();

 private:
  absl::Status Receive(const nccl::NcclPlace& place, void* arena, uint64_t bytes, absl::Time deadline);
  void AbortLocked();

  std::mutex mutex_;         // of the calls
  std::mutex member_mutex_;  // of member_, which Abort() reaches while the thread works
  std::shared_ptr<nccl::NcclComm> member_;
  std::string member_id_;
  std::thread thread_;
  absl::Status result_ = absl::FailedPreconditionError("no broadcast was started");
};

}  // namespace rein::weights
