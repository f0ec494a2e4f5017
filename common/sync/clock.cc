#include "common/sync/clock.h"

#include "absl/time/clock.h"

namespace rein::sync {

RealClock::RealClock()
    : wall_start_(absl::Now()), steady_start_(std::chrono::steady_clock::now()) {}

absl::Time RealClock::Now() const {
  return wall_start_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_start_);
}

VirtualClock::VirtualClock(absl::Time start) : start_(start) {}

absl::Time VirtualClock::Now() const { return start_ + absl::Nanoseconds(nanoseconds_.load()); }

// Upwards, so that a time that was waited for is reached.
void VirtualClock::Advance(absl::Duration by) {
  nanoseconds_ += absl::ToInt64Nanoseconds(absl::Ceil(by, absl::Nanoseconds(1)));
}

void VirtualClock::AdvanceTo(absl::Time time) {
  absl::Duration by = time - Now();
  if (by > absl::ZeroDuration()) Advance(by);
}

}  // namespace rein::sync
