// at::parallel_for is a header's template: it runs on several threads only where its caller is compiled with OpenMP.

#include <mutex>
#include <set>
#include <thread>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace rein::tensor {
namespace {

TEST(ParallelTest, LoopsOfOursRunOnSeveralThreads) {
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 2);
}

}  // namespace
}  // namespace rein::tensor
