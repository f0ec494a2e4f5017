// RateLimit lets so many through in each second. Thread-safe.

#pragma once

#include <cstdint>
#include <mutex>

#include "absl/time/time.h"

#include "common/sync/clock.h"

namespace rein::services {

class RateLimit {
 public:
  // `clock` must outlive it.
  RateLimit(const sync::Clock& clock, int per_second) : clock_(clock), per_second_(per_second) {}

  bool Take() {
    std::lock_guard<std::mutex> lock(mutex_);
    const int64_t second = absl::ToUnixSeconds(clock_.Now());
    if (second != second_) taken_ = 0;
    second_ = second;
    return taken_++ < per_second_;
  }

 private:
  const sync::Clock& clock_;
  const int per_second_;
  std::mutex mutex_;
  int64_t second_ = 0;
  int taken_ = 0;
};

}  // namespace rein::services
