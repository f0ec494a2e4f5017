// Advantages that the golden vectors do not hold, by hand; and what all of them promise.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trainer/advantages/gae.h"
#include "trainer/advantages/gpg.h"
#include "trainer/advantages/leave_one_out.h"
#include "trainer/advantages/optimal_baseline.h"
#include "trainer/advantages/pass_at_k.h"
#include "trainer/advantages/per_reward.h"
#include "trainer/advantages/token_reward.h"
#include "trainer/advantages/whiten.h"

namespace rein::trainer {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using Doubles = std::vector<double>;

TEST(OptimalBaselineTest, WeighsRewardsByLength) {
  // (3 * 1 + 1 * 0) / 4 = 0.75; the group of one keeps its reward.
  EXPECT_THAT(OptimalBaseline({1, 0, 2}, {5, 5, 9}, {3, 1, 4}), ElementsAre(0.25, -0.75, 2));
}

TEST(GpgTest, ScalesByTheShareOfRewardedCompletions) {
  // Two of four earned something: alpha = 2.
  EXPECT_THAT(GroupPolicyGradient({1, 0, 1, 0}, {0, 0, 0, 0}), ElementsAre(1, -1, 1, -1));
  EXPECT_THAT(GroupPolicyGradient({0, 0}, {0, 0}), ElementsAre(0, 0));
}

TEST(PassAtKTest, OnlyTheBestIsRewardedByItsLead) {
  EXPECT_THAT(PassAtK({1, 3, 2}, {0, 0, 0}, {.normalize_by_std = false}), ElementsAre(0, 1, 0));
  // The deviation of 1, 3, 2 is 1.
  EXPECT_THAT(PassAtK({1, 3, 2}, {0, 0, 0}, {.normalize_by_std = true, .epsilon = 1}),
              ElementsAre(0, 0.5, 0));
  EXPECT_THAT(PassAtK({3, 3, 2, 7}, {0, 0, 0, 1}, {}), ElementsAre(0, 0, 0, 0));  // a tie; alone
}

TEST(PerRewardTest, EachRewardCountsByItsWeightWhateverItsScale) {
  // Two groups of two. The first reward is a thousand times larger; normalised they are alike.
  const Doubles a =
      PerReward({{1000, 0}, {0, 1}, {0, 0}, {1000, 1}}, {1, 1}, {0, 0, 1, 1}, 0);
  // Within groups each reward gives +-sqrt(1/2): sums 0, 0, -sqrt 2, sqrt 2; the whole has deviation
  // sqrt(4/3).
  EXPECT_THAT(a, ElementsAre(DoubleNear(0, 1e-12), DoubleNear(0, 1e-12), DoubleNear(-1.224744871, 1e-9),
                             DoubleNear(1.224744871, 1e-9)));
}

TEST(AllOfThem, EqualRewardsGiveExactZeros) {
  const Doubles reward(7, 0.1);  // whose mean rounds
  const std::vector<uint32_t> group(7, 3);
  const Doubles zeros(7, 0.0);
  EXPECT_EQ(LeaveOneOut(reward, group), zeros);
  EXPECT_EQ(OptimalBaseline(reward, group, {1, 2, 3, 4, 5, 6, 7}), zeros);
  EXPECT_EQ(GroupPolicyGradient(reward, group), zeros);
  EXPECT_EQ(PassAtK(reward, group, {}), zeros);
  EXPECT_EQ(PerReward(std::vector<Doubles>(7, {0.1, 0.2}), {1, 1}, group, 0), zeros);
}

TEST(WhitenTest, TooFewTokensBecomeZero) {
  EXPECT_EQ(Whiten({{3}}), (TokenRows{{0}}));
  EXPECT_EQ(Whiten({{}, {}}), (TokenRows{{}, {}}));
}

TEST(TokenRewardTest, TheRewardStandsAtTheLastTarget) {
  EXPECT_EQ(RewardAtEnd({5, 6, 7}, {2, 0, 1}), (TokenRows{{0, 5}, {}, {7}}));
}

// AReaL tests/test_ppo_gae.py.
TEST(TurnGaeTest, TurnsAreTimeSteps) {
  const TokenRows zero{{0, 0, 0, 0}};
  Gae gae = TurnGae({{0, 1, 0, 2}}, zero, {{0, 0, 1, 1}}, {.gamma = 1, .lambda = 0.5});
  EXPECT_THAT(gae.advantage[0], ElementsAre(2, 2, 2, 2));
}

// The same file's case with a gap (the token of value 9, which is no target) and a cut last turn.
TEST(TurnGaeTest, GapsAndABootstrap) {
  Gae gae = TurnGae({{0, 3, 0, 4}}, {{1, 5, 2, 8}}, {{0, 0, 2, 2}}, {.gamma = 0.5, .lambda = 0.25}, {8});
  EXPECT_THAT(gae.advantage[0], ElementsAre(3.75, 3.75, 6, 6));
  EXPECT_THAT(gae.returns[0], ElementsAre(4.75, 4.75, 8, 8));
}

TEST(TurnGaeTest, TurnsOfOneTokenAreTokenGae) {
  const TokenRows reward{{0.5, -1, 2}, {1}}, value{{0.1, 0.2, 0.3}, {0.4}};
  const GaeSettings settings{.gamma = 0.9, .lambda = 0.8};
  Gae token = TokenGae(reward, value, settings);
  Gae turn = TurnGae(reward, value, {{0, 1, 2}, {0}}, settings);
  EXPECT_EQ(token.advantage, turn.advantage);
  EXPECT_EQ(token.returns, turn.returns);
}

}  // namespace
}  // namespace rein::trainer
