#include "common/rpc/call_group.h"

#include <utility>

namespace rein::rpc {

CallGroup::~CallGroup() {
  CancelAll();
  std::unique_lock<std::mutex> lock(mutex_);
  // No deadline: gRPC ends a cancelled call at once, and going on would free memory in use.
  left_.wait(lock, [this] { return cancels_.empty(); });
}

uint64_t CallGroup::Enter(std::function<void()> cancel) {
  std::lock_guard<std::mutex> lock(mutex_);
  cancels_.emplace(next_id_, std::move(cancel));
  return next_id_++;
}

void CallGroup::Leave(uint64_t id) {
  std::lock_guard<std::mutex> lock(mutex_);
  cancels_.erase(id);
  left_.notify_all();
}

void CallGroup::CancelAll() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [id, cancel] : cancels_) cancel();
}

}  // namespace rein::rpc
