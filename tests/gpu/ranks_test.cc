// Trainer ranks over NCCL, as processes that share GPU 0.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/gpu/rank_process.h"

namespace rein::gpu {
namespace {

using ::testing::StartsWith;

TEST(RanksGpuTest, CollectivesAreRightAmongTwoAndFourRanks) {
  for (int size : {2, 4}) {
    RankGroup ranks(size, "collectives");
    EXPECT_EQ(RunTask("collectives", ranks.group()), "ok");
    for (int rank = 1; rank < size; ++rank) EXPECT_EQ(ranks.Other(rank).ReadLine(), "ok");
  }
}

TEST(RanksGpuTest, TwoRanksTrainAsOne) {
  RankGroup ranks(2, "train");
  const std::string two = RunTask("train", ranks.group());
  EXPECT_EQ(ranks.Other(1).ReadLine(), two) << "the same losses and the same weights on both ranks";
  auto alone = parallel::SingleProcess();
  const std::vector<std::string> wanted = absl::StrSplit(RunTask("train", *alone), ' ');
  const std::vector<std::string> got = absl::StrSplit(two, ' ');
  ASSERT_EQ(got.size(), 3u) << two;
  for (size_t i : {0, 1}) {
    double loss = 0, wanted_loss = 0;
    ASSERT_TRUE(absl::SimpleAtod(got[i], &loss) && absl::SimpleAtod(wanted[i], &wanted_loss)) << two;
    EXPECT_NEAR(loss, wanted_loss, 1e-4);
  }
}

TEST(RanksGpuTest, AKilledRankIsNoticedAtOnce) {
  RankGroup ranks(3, "hang");
  std::thread killer([&] {
    absl::SleepFor(absl::Seconds(1));
    ranks.Other(2).Signal(SIGKILL);
  });
  const absl::Time start = absl::Now();
  EXPECT_THAT(RunTask("hang", ranks.group()), StartsWith("fatal UNAVAILABLE: process group: "));
  killer.join();
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
}

TEST(RanksGpuTest, AFrozenRankMissesTheDeadline) {
  RankGroup ranks(2, "hang", absl::Seconds(15));
  std::thread freezer([&] {
    absl::SleepFor(absl::Seconds(1));
    ranks.Other(1).Signal(SIGSTOP);
  });
  const absl::Time start = absl::Now();
  EXPECT_THAT(RunTask("hang", ranks.group()), StartsWith("fatal UNAVAILABLE: process group: "));
  freezer.join();
  EXPECT_LT(absl::Now() - start, absl::Seconds(40));
}

}  // namespace
}  // namespace rein::gpu
