#include "common/weights/channel/broadcast_receiver.h"

#include <utility>

#include "common/status/status_macros.h"

namespace rein::weights {

BroadcastReceiver::~BroadcastReceiver() { Abort(); }

void BroadcastReceiver::Start(const nccl::NcclPlace& place, void* arena, uint64_t bytes,
                              absl::Time deadline) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (thread_.joinable()) AbortLocked();
  thread_ = std::thread(
      [this, place, arena, bytes, deadline] { result_ = Receive(place, arena, bytes, deadline); });
}

absl::Status BroadcastReceiver::Receive(const nccl::NcclPlace& place, void* arena, uint64_t bytes,
                                        absl::Time deadline) {
  std::shared_ptr<nccl::NcclComm> member;
  {
    std::lock_guard<std::mutex> lock(member_mutex_);
    if (member_id_ == place.id) member = member_;
    if (member == nullptr) member_.reset();
  }
  if (member == nullptr) {
    REIN_ASSIGN_OR_RETURN(member, nccl::NcclComm::Join(place, deadline));
    std::lock_guard<std::mutex> lock(member_mutex_);
    member_ = member;
    member_id_ = place.id;
  }
  absl::Status status = member->Broadcast(arena, bytes, /*root=*/0, member->own_stream(), deadline);
  if (!status.ok()) {
    std::lock_guard<std::mutex> lock(member_mutex_);
    member_.reset();
  }
  return status;
}

absl::Status BroadcastReceiver::Wait() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (thread_.joinable()) thread_.join();
  return result_;
}

void BroadcastReceiver::Abort() {
  std::lock_guard<std::mutex> lock(mutex_);
  AbortLocked();
}

void BroadcastReceiver::AbortLocked() {
  {
    std::lock_guard<std::mutex> lock(member_mutex_);
    if (member_ != nullptr) member_->Abort();
    member_.reset();
    member_id_.clear();
  }
  if (thread_.joinable()) thread_.join();
  result_ = absl::CancelledError("the transfer was aborted");
}

}  // namespace rein::weights
