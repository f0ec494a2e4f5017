#include "common/rpc/reply_cache.h"

#include <atomic>
#include <future>
#include <thread>

#include <gtest/gtest.h>

#include "rein/v1/policy.pb.h"

namespace rein::rpc {
namespace {

using Reply = v1::PolicyVersion;

constexpr absl::Duration kPatience = absl::Seconds(10);

Reply Numbered(uint64_t number) {
  Reply reply;
  reply.set_number(number);
  return reply;
}

TEST(ReplyCacheTest, ARepeatGetsTheFirstAnswer) {
  ReplyCache cache;
  auto first = cache.Once<Reply>("a", kPatience, [] { return Numbered(1); });
  auto repeat = cache.Once<Reply>("a", kPatience, [] { return Numbered(2); });
  auto other = cache.Once<Reply>("b", kPatience, [] { return Numbered(3); });
  EXPECT_EQ(first->number(), 1);
  EXPECT_EQ(repeat->number(), 1);
  EXPECT_EQ(other->number(), 3);
}

TEST(ReplyCacheTest, AnIdCountsWithinItsMethod) {
  ReplyCache cache;
  auto version = cache.Once<Reply>("a", kPatience, [] { return Numbered(1); });
  auto fence = cache.Once<v1::Fence>("a", kPatience, [] {
    v1::Fence reply;
    reply.set_job("digits");
    return reply;
  });
  EXPECT_EQ(version->number(), 1);
  ASSERT_TRUE(fence.ok()) << fence.status();
  EXPECT_EQ(fence->job(), "digits");
}

TEST(ReplyCacheTest, ErrorsAreKeptUnlessTheyInviteARetry) {
  ReplyCache cache;
  auto refuse = [] { return absl::StatusOr<Reply>(absl::InvalidArgumentError("no")); };
  auto busy = [] { return absl::StatusOr<Reply>(absl::UnavailableError("busy")); };
  EXPECT_FALSE(cache.Once<Reply>("refused", kPatience, refuse).ok());
  EXPECT_EQ(cache.Once<Reply>("refused", kPatience, [] { return Numbered(1); }).status().message(),
            "no");
  EXPECT_FALSE(cache.Once<Reply>("busy", kPatience, busy).ok());
  EXPECT_EQ(cache.Once<Reply>("busy", kPatience, [] { return Numbered(1); })->number(), 1);
}

TEST(ReplyCacheTest, ARepeatOfARunningRequestWaitsForIt) {
  ReplyCache cache;
  std::promise<void> started, finish;
  std::thread first([&] {
    auto reply = cache.Once<Reply>("a", kPatience, [&] {
      started.set_value();
      finish.get_future().wait_for(std::chrono::seconds(10));
      return Numbered(1);
    });
    EXPECT_EQ(reply->number(), 1);
  });
  started.get_future().wait_for(std::chrono::seconds(10));
  auto impatient = cache.Once<Reply>("a", absl::Milliseconds(5), [] { return Numbered(2); });
  EXPECT_EQ(impatient.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(impatient.status().message(), "request PolicyVersion a is still running");
  std::atomic<uint64_t> seen = 0;
  std::thread repeat(
      [&] { seen = cache.Once<Reply>("a", kPatience, [] { return Numbered(2); })->number(); });
  finish.set_value();
  repeat.join();
  first.join();
  EXPECT_EQ(seen, 1);
}

TEST(ReplyCacheTest, TheOldestAnswersAreForgotten) {
  ReplyCache cache(/*max_replies=*/2);
  for (const char* id : {"a", "b", "c"}) {
    ASSERT_TRUE(cache.Once<Reply>(id, kPatience, [] { return Numbered(1); }).ok());
  }
  EXPECT_EQ(cache.Once<Reply>("b", kPatience, [] { return Numbered(2); })->number(), 1);
  EXPECT_EQ(cache.Once<Reply>("a", kPatience, [] { return Numbered(2); })->number(), 2);
  cache.Clear();
  EXPECT_EQ(cache.Once<Reply>("c", kPatience, [] { return Numbered(2); })->number(), 2);
}

}  // namespace
}  // namespace rein::rpc
