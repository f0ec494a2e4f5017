#include "services/reference/step_scores.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::services {
namespace {

using testing::ElementsAre;
using testing::Pair;

std::vector<std::pair<std::string, size_t>> Split(std::string_view completion, std::string_view separator) {
  std::vector<std::pair<std::string, size_t>> steps;
  for (const StepText& step : SplitSteps(completion, separator)) steps.emplace_back(step.text, step.end);
  return steps;
}

TEST(SplitStepsTest, PiecesBetweenSeparators) {
  EXPECT_THAT(Split("1+1=2\n2+2=4\nso 4", "\n"), ElementsAre(Pair("1+1=2", 5), Pair("2+2=4", 11), Pair("so 4", 16)));
  EXPECT_THAT(Split("a\n\nb\n \n", "\n"), ElementsAre(Pair("a", 1), Pair("b", 4))) << "blank ones are no steps";
  EXPECT_THAT(Split("a. b. ", ". "), ElementsAre(Pair("a", 1), Pair("b", 4)));
  EXPECT_THAT(Split("whole", "\n"), ElementsAre(Pair("whole", 5)));
  EXPECT_THAT(Split("", "\n"), ElementsAre(Pair("", 0))) << "never none";
}

TEST(ResultOfStepsTest, EachReduction) {
  const auto score = [](double chance) { return static_cast<float>(std::log(chance / (1 - chance))); };
  const std::vector<float> scores = {score(0.9), score(0.5), score(0.8)};
  const std::vector<uint32_t> ends = {3, 7, 9};
  auto of = [&](v1::StepReduction reduction) { return ResultOfSteps(scores, ends, reduction); };
  EXPECT_NEAR(of(v1::STEP_REDUCTION_MIN).reward(), 0.5, 1e-6);
  EXPECT_NEAR(of(v1::STEP_REDUCTION_PRODUCT).reward(), 0.36, 1e-6);
  EXPECT_NEAR(of(v1::STEP_REDUCTION_LAST).reward(), 0.8, 1e-6);
  EXPECT_EQ(of(v1::STEP_REDUCTION_MIN).steps_size(), 0) << "earned at the end";
  for (auto [reduction, share] : {std::pair{v1::STEP_REDUCTION_SUM, 1.0}, {v1::STEP_REDUCTION_MEAN, 1.0 / 3}}) {
    const v1::RewardResult result = of(reduction);
    EXPECT_NEAR(result.reward(), 2.2 * share, 1e-6);
    ASSERT_EQ(result.steps_size(), 3);
    EXPECT_EQ(result.steps(1).end(), 7u);
    EXPECT_NEAR(result.steps(1).reward(), 0.5 * share, 1e-6);
  }
}

}  // namespace
}  // namespace rein::services
