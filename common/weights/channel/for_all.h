// ForAll calls a function for many indices at once.

#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

namespace rein::weights {

// Returns once `body` has returned for every index below `count`; each has a thread of its own.
inline void ForAll(size_t count, const std::function<void(size_t)>& body) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace rein::weights
