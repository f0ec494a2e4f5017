#include "common/rpc/fence_guard.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace rein::rpc {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;

}  // namespace

void FenceGuard::Open() {
  std::lock_guard<std::mutex> lock(mutex_);
  open_ = true;
}

void FenceGuard::Follow(const v1::Fence& fence) {
  std::lock_guard<std::mutex> lock(mutex_);
  following_ = true;
  controller_epoch_ = std::max(controller_epoch_, fence.controller_epoch());
  actor_epoch_ = std::max(actor_epoch_, fence.actor_epoch());
}

void FenceGuard::Enroll(uint64_t controller_epoch, uint64_t actor_epoch, absl::Time lease_end) {
  std::lock_guard<std::mutex> lock(mutex_);
  controller_epoch_ = std::max(controller_epoch_, controller_epoch);
  actor_epoch_ = actor_epoch;
  lease_end_ = lease_end;
}

void FenceGuard::ExtendLease(uint64_t controller_epoch, absl::Time lease_end) {
  std::lock_guard<std::mutex> lock(mutex_);
  controller_epoch_ = std::max(controller_epoch_, controller_epoch);
  lease_end_ = std::max(lease_end_, lease_end);
}

void FenceGuard::Expel() {
  std::lock_guard<std::mutex> lock(mutex_);
  actor_epoch_ = 0;
}

absl::Status FenceGuard::OldController(const v1::Fence& fence) const {
  return absl::FailedPreconditionError(
      absl::StrCat("fence.controller_epoch: the call is of controller epoch ",
                   fence.controller_epoch(), ", the current one is ", controller_epoch_));
}

absl::Status FenceGuard::OtherActor(const v1::Fence& fence) const {
  return absl::FailedPreconditionError(
      absl::StrCat("fence.actor_epoch: the call means actor epoch ", fence.actor_epoch(),
                   ", the current one is ", actor_epoch_));
}

absl::Status FenceGuard::Admit(const v1::Fence& fence) {
  size_t id_bytes = fence.request_id().size();
  if (id_bytes == 0 || id_bytes > kMaxRequestIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fence.request_id: is ", id_bytes, " bytes long, wanted 1 to ", kMaxRequestIdBytes));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (open_ && !following_) return absl::OkStatus();
  if (open_) {
    // A new registration of the group's first rank has a higher epoch.
    if (fence.controller_epoch() < controller_epoch_) return OldController(fence);
    if (fence.actor_epoch() < actor_epoch_) return OtherActor(fence);
    controller_epoch_ = fence.controller_epoch();
    actor_epoch_ = fence.actor_epoch();
    return absl::OkStatus();
  }
  if (actor_epoch_ == 0) {
    return absl::UnavailableError("this actor has no actor_epoch yet: it is not registered");
  }
  if (fence.controller_epoch() < controller_epoch_) return OldController(fence);
  if (fence.actor_epoch() != actor_epoch_) return OtherActor(fence);
  absl::Duration overdue = clock_.Now() - lease_end_;
  if (overdue > absl::ZeroDuration()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the lease of actor epoch ", actor_epoch_, " ran out ",
                     absl::FormatDuration(absl::Trunc(overdue, absl::Milliseconds(1))), " ago"));
  }
  controller_epoch_ = fence.controller_epoch();
  return absl::OkStatus();
}

bool IsFenceRefusal(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) &&
         (absl::StartsWith(status.message(), "fence.") ||
          absl::StartsWith(status.message(), "the lease of actor epoch"));
}

uint64_t FenceGuard::controller_epoch() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return controller_epoch_;
}

uint64_t FenceGuard::actor_epoch() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return actor_epoch_;
}

}  // namespace rein::rpc
