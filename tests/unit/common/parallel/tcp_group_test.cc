#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "common/parallel/process_group.h"
#include "common/status/fatal.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace rein::parallel {
namespace {

using ::testing::HasSubstr;

TEST(TcpGroupTest, SumsInRankOrderAndTheSameBitsEverywhere) {
  for (int size : {2, 4}) {
    at::Tensor inputs = at::randn({size, 5 << 20}) * 1e3;  // more than one chunk
    at::Tensor wanted = inputs[0].clone();
    for (int r = 1; r < size; ++r) wanted.add_(inputs[r]);
    RunRanks(size, [&](ProcessGroup& group) {
      at::Tensor own = inputs[group.rank()].clone();
      absl::Status status = group.AllReduceSum(own);
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_TRUE(at::equal(own, wanted)) << group.rank();
    });
  }
}

TEST(TcpGroupTest, BroadcastsFromAnyRankAndGathersUnevenSlices) {
  RunRanks(3, [](ProcessGroup& group) {
    for (int root = 0; root < 3; ++root) {
      at::Tensor x = at::full({7}, group.rank() == root ? 40.0 + root : -1.0);
      EXPECT_TRUE(group.Broadcast(x, root).ok());
      EXPECT_TRUE(at::equal(x, at::full({7}, 40.0 + root)));
    }
    at::Tensor whole = at::zeros({6});
    std::vector<at::Tensor> parts = {whole.narrow(0, 0, 3), whole.narrow(0, 3, 3), whole.narrow(0, 6, 0)};
    at::Tensor own = at::full({group.rank() == 2 ? 0 : 3}, group.rank() + 1.0);
    EXPECT_TRUE(group.AllGather(own, parts).ok());
    EXPECT_TRUE(at::equal(whole, at::tensor({1, 1, 1, 2, 2, 2}, at::kFloat)));
  });
}

TEST(TcpGroupTest, SaysWhoIsMissingOrGone) {
  auto listener = *RankListener::Create("127.0.0.1");
  GroupPlace first{.size = 2, .listener = listener.get(), .timeout = absl::Milliseconds(200)};
  EXPECT_THAT(std::string(JoinGroup(first, "cpu").status().message()),
              HasSubstr("only 1 ranks came in time"));
  first.others = [] { return absl::InternalError("rank 1 fell over"); };
  EXPECT_EQ(JoinGroup(first, "cpu").status().message(), "rank 1 fell over");
  GroupPlace second{.rank = 1, .size = 2, .address = "127.0.0.1:1"};
  second.timeout = absl::Milliseconds(200);
  auto lost = JoinGroup(second, "cpu");
  EXPECT_THAT(std::string(lost.status().message()), HasSubstr("rank 0 does not wait any more"));
  EXPECT_FALSE(JoinGroup({.rank = 2, .size = 2, .address = "127.0.0.1:1"}, "cpu").ok());
  EXPECT_FALSE(JoinGroup({.size = 2}, "cpu").ok()) << "rank 0 has no listener";
  RunRanks(2, [](ProcessGroup& group) {
    if (group.rank() == 1) return;  // leaves at once
    at::Tensor x = at::ones({3});
    absl::Status status = group.AllReduceSum(x);
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_TRUE(IsFatal(status));
  });
}

}  // namespace
}  // namespace rein::parallel
