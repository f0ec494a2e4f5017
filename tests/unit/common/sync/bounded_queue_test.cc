#include "common/sync/bounded_queue.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace rein::sync {
namespace {

constexpr absl::Duration kLong = absl::Seconds(10);
constexpr absl::Duration kShort = absl::Milliseconds(5);

TEST(BoundedQueueTest, KeepsOrderAcrossThreads) {
  BoundedQueue<int> queue(/*capacity=*/2);
  std::thread writer([&queue] {
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(queue.Push(i, kLong));
    queue.Close();
  });
  std::vector<int> seen;
  while (std::optional<int> item = queue.Pop(kLong)) seen.push_back(*item);
  writer.join();
  ASSERT_EQ(seen.size(), 100);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(seen[i], i);
}

TEST(BoundedQueueTest, WaitsEndAtTheirDeadline) {
  BoundedQueue<int> queue(/*capacity=*/1);
  EXPECT_FALSE(queue.Pop(kShort).has_value());
  EXPECT_TRUE(queue.Push(1, kShort));
  EXPECT_FALSE(queue.Push(2, kShort));
}

TEST(BoundedQueueTest, AClosedQueueTakesNothingButGivesWhatItHas) {
  BoundedQueue<int> queue(/*capacity=*/2);
  EXPECT_TRUE(queue.Push(1, kShort));
  queue.Close();
  EXPECT_FALSE(queue.Push(2, kLong));
  EXPECT_EQ(queue.Pop(kLong), 1);
  EXPECT_FALSE(queue.Pop(kLong).has_value());
  EXPECT_TRUE(queue.closed());
}

}  // namespace
}  // namespace rein::sync
