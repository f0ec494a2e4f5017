#include "services/controller/evaluation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/fakes/fake_prompts.h"

namespace rein::services {
namespace {

v1::RewardResult Scored(std::vector<std::pair<std::string, double>> parts) {
  v1::RewardResult result;
  for (const auto& [name, score] : parts) {
    v1::RewardPart* part = result.add_parts();
    part->set_name(name);
    part->set_score(score);
  }
  return result;
}

// Rewards that go by the dataset of a prompt: each prompt has its own, and one has failed.
TEST(EvaluationTest, EachPromptCountsByTheRewardsThatAreForIt) {
  fakes::FakePrompts prompts(5);
  Evaluation evaluation = *Evaluation::Begin(prompts, 7);
  evaluation.items()[0].result = Scored({{"math", 1}, {"length", -1}});
  evaluation.items()[1].result = Scored({{"math", 0}, {"length", 0}});
  evaluation.items()[2].result = Scored({{"code", 1}, {"length", 0}});
  evaluation.items()[3].result = Scored({{"code", 0.5}, {"length", 0}});
  evaluation.items()[4].given_up = "took too long";
  v1::EvalResult result = evaluation.Result("math");
  EXPECT_EQ(result.prompts(), 5u);
  EXPECT_DOUBLE_EQ(result.accuracy(), 2.5 / 5) << "code counts where math is not for the prompt";
  std::map<std::string, double> parts;
  for (const v1::Metric& part : result.parts()) parts[part.name()] = part.value();
  EXPECT_DOUBLE_EQ(parts["math"], 1.0 / 3) << "of its two prompts and the one without a result";
  EXPECT_DOUBLE_EQ(parts["code"], 1.5 / 3);
  EXPECT_DOUBLE_EQ(parts["length"], -1.0 / 5);
}

TEST(EvaluationTest, OneRewardForAll) {
  fakes::FakePrompts prompts(4);
  Evaluation evaluation = *Evaluation::Begin(prompts, 7);
  for (int i = 0; i < 4; ++i) evaluation.items()[i].result = Scored({{"numeric", i == 0 ? 1 : 0}});
  v1::EvalResult result = evaluation.Result("numeric");
  EXPECT_DOUBLE_EQ(result.accuracy(), 0.25);
  EXPECT_NEAR(result.standard_error(), std::sqrt(0.25 * 0.75 / 3), 1e-12);
}

}  // namespace
}  // namespace rein::services
