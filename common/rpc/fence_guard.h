// FenceGuard decides whether a mutating call may come in: it knows which controller and which
// incarnation of this process are the current ones.
//
//   REIN_RETURN_IF_ERROR(guard.Admit(request->fence()));  // first line of every mutating method
//
// Until the first Enroll() everything is refused, unless the guard was opened with Open() for a
// process that runs without a controller: then epochs are not looked at. A rank that another process
// of its group calls has no lease either, but follows the epochs of its caller. Thread-safe.

#pragma once

#include <cstdint>
#include <mutex>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/sync/clock.h"
#include "rein/v1/policy.pb.h"

namespace rein::rpc {

class FenceGuard {
 public:
  // `clock` must outlive the guard.
  explicit FenceGuard(const sync::Clock& clock) : clock_(clock) {}

  void Open();

  // Of an open guard: from now on calls that are older than this one are refused.
  void Follow(const v1::Fence& fence);

  // The epochs that a registration gave, and when its lease ends.
  void Enroll(uint64_t controller_epoch, uint64_t actor_epoch, absl::Time lease_end);
  // A heartbeat was answered.
  void ExtendLease(uint64_t controller_epoch, absl::Time lease_end);
  // The registration is over: everything is refused until the next Enroll().
  void Expel();

  // FAILED_PRECONDITION for an older controller, for another incarnation of this actor, and when
  // the lease ran out; UNAVAILABLE before the first Enroll(); INVALID_ARGUMENT for a request id
  // that is empty or longer than 128 bytes. A newer controller_epoch is taken over.
  absl::Status Admit(const v1::Fence& fence);

  uint64_t controller_epoch() const;
  uint64_t actor_epoch() const;

 private:
  absl::Status OldController(const v1::Fence& fence) const;
  absl::Status OtherActor(const v1::Fence& fence) const;

  const sync::Clock& clock_;
  mutable std::mutex mutex_;
  bool open_ = false;
  bool following_ = false;  // of an open guard: epochs never go back
  uint64_t controller_epoch_ = 0;
  uint64_t actor_epoch_ = 0;
  absl::Time lease_end_ = absl::InfinitePast();
};

// True for the refusals of Admit(): the caller's view of epochs is old, and will be renewed. Works
// on the caller's side too.
bool IsFenceRefusal(const absl::Status& status);

}  // namespace rein::rpc
