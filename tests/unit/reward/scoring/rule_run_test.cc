#include "reward/scoring/rule_run.h"

#include <atomic>
#include <future>
#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

class RuleRunTest : public testing::Test {
 protected:
  ~RuleRunTest() override { release_.set_value(); }

  static Items MakeItems(int count) {
    auto items = std::make_shared<std::vector<v1::RewardItem>>(count);
    for (int i = 0; i < count; ++i) (*items)[i].set_id(std::to_string(i));
    return items;
  }

  // Scores an item by its number.
  static absl::StatusOr<double> Echo(const v1::RewardItem& item, const Expired&) {
    return std::stod(item.id());
  }

  // A rule that hangs until the test is over, for the items that `hangs` picks.
  NamedRule Hanging(std::function<bool(int)> hangs) {
    return {.name = "hanging",
            .timeout = absl::Milliseconds(400),  // those that do not hang take less on a busy machine too
            .item = [this, hangs](const v1::RewardItem& item, const Expired& expired) {
              if (hangs(std::stoi(item.id()))) released_.wait();
              return Echo(item, expired);
            }};
  }

  std::vector<RuleScores> Run(const std::vector<NamedRule>& rules, int items,
                              absl::Duration patience = absl::Seconds(20)) {
    return RunRules(rules, MakeItems(items), clock_.Now() + patience, clock_, pool_);
  }

  std::promise<void> release_;
  std::shared_future<void> released_ = release_.get_future().share();
  sync::RealClock clock_;
  WorkerPool pool_{/*threads=*/2, /*max_stuck=*/16};
};

TEST_F(RuleRunTest, ScoresEveryItemByEveryRule) {
  NamedRule echo = {.name = "echo", .item = Echo};
  NamedRule twice = {.name = "twice",
                     .batch = [](const std::vector<v1::RewardItem>& items, absl::Duration) {
                       Scores scores;
                       for (const auto& item : items) scores.push_back(2 * std::stod(item.id()));
                       return scores;
                     }};
  auto results = Run({echo, twice}, 500);
  ASSERT_EQ(results.size(), 2u);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(results[0].scores[i]->score, i);
    EXPECT_EQ(results[1].scores[i]->score, 2 * i);
  }
}

TEST_F(RuleRunTest, NoItemsNoScores) {
  EXPECT_TRUE(Run({{.name = "e", .item = Echo}}, 0)[0].scores.empty());
}

TEST_F(RuleRunTest, AHungRuleCostsItsOwnItemsOnly) {
  NamedRule echo = {.name = "echo", .item = Echo};
  auto results = Run({Hanging([](int i) { return i == 1 || i == 3; }), echo}, 6);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(results[1].scores[i]->score, i);
    if (i == 1 || i == 3) {
      EXPECT_TRUE(absl::IsDeadlineExceeded(results[0].scores[i].status()));
      EXPECT_THAT(std::string(results[0].scores[i].status().message()),
                  HasSubstr("took longer than 400ms"));
    } else {
      EXPECT_EQ(results[0].scores[i]->score, i);
    }
  }
  EXPECT_EQ(pool_.stuck(), 2);
  EXPECT_EQ(Run({echo}, 3)[0].scores[2]->score, 2) << "the pool still works";
}

TEST_F(RuleRunTest, ARuleThatAlwaysHangsIsGivenUp) {
  auto results = Run({Hanging([](int) { return true; })}, 100);
  EXPECT_THAT(std::string(results[0].scores[99].status().message()),
              HasSubstr("not tried after 8 timeouts"));
  EXPECT_LE(pool_.stuck(), kMaxTimeouts + 2);
}

TEST_F(RuleRunTest, ACrashIsAnErrorOfItsItem) {
  NamedRule crashing = {.name = "crashing",
                        .item = [](const v1::RewardItem& item, const Expired& e) {
                          if (item.id() == "1") throw std::runtime_error("boom");
                          return Echo(item, e);
                        }};
  auto results = Run({crashing}, 3);
  EXPECT_THAT(std::string(results[0].scores[1].status().message()), HasSubstr("crashed: boom"));
  EXPECT_EQ(results[0].scores[2]->score, 2);
}

TEST_F(RuleRunTest, ABatchMustScoreEveryItem) {
  NamedRule lossy = {.name = "lossy",
                     .batch = [](const auto&, absl::Duration) { return Scores{1.0}; }};
  EXPECT_THAT(std::string(Run({lossy}, 3)[0].scores[0].status().message()),
              HasSubstr("gave 1 scores for 3"));
}

TEST_F(RuleRunTest, TheCallHasADeadline) {
  NamedRule slow = Hanging([](int) { return true; });
  slow.timeout = absl::Hours(1);
  auto results = Run({slow}, 10, absl::Milliseconds(30));
  for (const auto& score : results[0].scores) EXPECT_TRUE(absl::IsDeadlineExceeded(score.status()));
}

}  // namespace
}  // namespace rein::reward
