#include "trainer/batching/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::trainer {
namespace {

using ::testing::ElementsAre;

TEST(PackingTest, ClosesAMicrobatchBeforeItOverflows) {
  EXPECT_THAT(PackMicrobatches({3, 4, 2, 20, 1, 9}, {0, 0, 0, 0, 0, 0}, 9),
              ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3), ElementsAre(4), ElementsAre(5)));
  EXPECT_TRUE(PackMicrobatches({}, {}, 9).empty());
}

TEST(PackingTest, WhatIsSharedCostsNothingExceptAtTheBeginningOfAMicrobatch) {
  EXPECT_THAT(PackMicrobatches({5, 6, 5, 5, 7}, {0, 4, 4, 4, 0}, 9),
              ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(4)));  // 5 + 2 + 1 + 1
  EXPECT_THAT(PackMicrobatches({5, 6, 6, 6}, {0, 4, 4, 4}, 9), ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3)));
  EXPECT_THAT(PackMicrobatches({5, 6, 6, 6, 5}, {0, 4, 4, 4, 4}, 9),
              ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3, 4)));  // 6, and one more
}

TEST(PackingTest, GroupsStayTogetherInMinibatches) {
  EXPECT_THAT(SplitByGroup({7, 7, 3, 3, 9, 9, 1}, 2),
              ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(4, 5, 6)));
  EXPECT_THAT(SplitByGroup({5, 5}, 4), ElementsAre(ElementsAre(0, 1)));
}

TEST(PackingTest, RanksGetLikeLoadsAndEverySequenceOnce) {
  EXPECT_THAT(BalanceOverRanks({5, 1, 4, 2}, 2), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  EXPECT_THAT(BalanceOverRanks({5}, 2), ElementsAre(ElementsAre(0), ElementsAre()));
}

TEST(PackingTest, BestFitFillsMicrobatches) {
  using Packs = std::vector<std::vector<size_t>>;
  // 6 + 4, 7 + 3, 5 + 5: in order of arrival it would take four.
  EXPECT_EQ(PackBestFit({6, 7, 5, 4, 3, 5}, 10), (Packs{{0, 3}, {1, 4}, {2, 5}}));
  EXPECT_EQ(PackMicrobatches({6, 7, 5, 4, 3, 5}, std::vector<int64_t>(6, 0), 10).size(), 4u);
  EXPECT_EQ(PackBestFit({30, 2, 3}, 10), (Packs{{0}, {1, 2}})) << "a longer one has its own";
  EXPECT_EQ(PackBestFit({4, 4, 4}, 8), (Packs{{0, 1}, {2}})) << "of equals the first";
  EXPECT_TRUE(PackBestFit({}, 8).empty());
}

}  // namespace
}  // namespace rein::trainer
