// Clock is how Rein reads the time, so that tests and the simulation can play it.
//
// Now() never goes back and never jumps: the real clock is set by the wall clock once, when it is
// made, and then follows the monotonic one. Thread-safe.

#pragma once

#include <atomic>
#include <chrono>

#include "absl/time/time.h"

namespace rein::sync {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

class RealClock final : public Clock {
 public:
  RealClock();
  absl::Time Now() const override;

 private:
  absl::Time wall_start_;
  std::chrono::steady_clock::time_point steady_start_;
};

// Stands still until it is moved.
class VirtualClock final : public Clock {
 public:
  explicit VirtualClock(absl::Time start = absl::UnixEpoch());
  absl::Time Now() const override;
  void Advance(absl::Duration by);
  // Does nothing when `time` is in the past.
  void AdvanceTo(absl::Time time);

 private:
  absl::Time start_;
  std::atomic<int64_t> nanoseconds_{0};
};

}  // namespace rein::sync
