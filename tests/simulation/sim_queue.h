// SimQueue plays events in the order of a virtual clock: the whole of time in a simulation.

#pragma once

#include <functional>
#include <map>
#include <random>
#include <utility>

#include "absl/time/time.h"

#include "common/sync/clock.h"

namespace rein::simulation {

// Every draw of a simulation comes from here.
class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : engine_(seed) {}

  bool Chance(double probability) { return Uniform() < probability; }
  absl::Duration Between(absl::Duration low, absl::Duration high) {
    return low + (high - low) * Uniform();
  }
  uint64_t Below(uint64_t bound) { return engine_() % bound; }

 private:
  double Uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

  std::mt19937_64 engine_;
};

class SimQueue {
 public:
  explicit SimQueue(sync::VirtualClock& clock) : clock_(clock) {}

  void After(absl::Duration delay, std::function<void()> event) {
    events_.emplace(std::make_pair(clock_.Now() + delay, next_++), std::move(event));
  }

  absl::Time Next() const {
    return events_.empty() ? absl::InfiniteFuture() : events_.begin()->first.first;
  }

  // Moves the clock to the next event and plays it.
  void PlayOne() {
    auto first = events_.begin();
    clock_.AdvanceTo(first->first.first);
    std::function<void()> event = std::move(first->second);
    events_.erase(first);
    event();
  }

 private:
  sync::VirtualClock& clock_;
  std::map<std::pair<absl::Time, uint64_t>, std::function<void()>> events_;
  uint64_t next_ = 0;
};

}  // namespace rein::simulation
