// CallGroup knows the asynchronous calls of one client that are under way, so that they can be
// cancelled together and a client is never destroyed under a running callback. Thread-safe.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

namespace rein::rpc {

class CallGroup {
 public:
  // Cancels what is under way and waits until all callbacks have returned. Must not run inside one.
  ~CallGroup();

  // `cancel` may be called at any time, from any thread, until Leave(id) returns.
  uint64_t Enter(std::function<void()> cancel);
  void Leave(uint64_t id);

  // Ends every call under way with CANCELLED; new ones may come.
  void CancelAll();

 private:
  std::mutex mutex_;
  std::condition_variable left_;
  std::map<uint64_t, std::function<void()>> cancels_;
  uint64_t next_id_ = 1;
};

}  // namespace rein::rpc
