#include "services/controller/evaluation.h"

#include <cmath>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/controller/eval_figures.h"
#include "tests/fakes/fake_prompts.h"

namespace rein::services {
namespace {

TEST(EvalFiguresTest, PassAtKIsTheShareOfSubsetsWithARightOne) {
  EXPECT_EQ(PassAt(1, 4, 1), 0.25);
  EXPECT_NEAR(PassAt(2, 4, 1), 1 - 3.0 / 6, 1e-12);  // C(3, 2) of C(4, 2) hold none
  EXPECT_NEAR(PassAt(5, 10, 3), 1 - 21.0 / 252, 1e-12);
  EXPECT_EQ(PassAt(2, 4, 3), 1);
  EXPECT_EQ(PassAt(4, 4, 0), 0);
  // Its mean over draws is the chance itself: without bias. n = 3 draws of chance 1/2, k = 2: 1 - 1/4.
  EXPECT_NEAR((PassAt(2, 3, 0) + 3 * PassAt(2, 3, 1) + 3 * PassAt(2, 3, 2) + PassAt(2, 3, 3)) / 8, 0.75, 1e-12);
  EXPECT_NEAR(PassAt(100, 200, 20), 1 - 3.8e-7, 1e-6) << "no overflow of binomials";
}

TEST(EvalFiguresTest, IntervalsAreOfStudentsT) {
  // Quantiles of R: qt(0.975, df).
  EXPECT_NEAR(StudentQuantile(1), 12.706, 1e-3);
  EXPECT_NEAR(StudentQuantile(3), 3.1824, 0.005);
  EXPECT_NEAR(StudentQuantile(9), 2.2622, 2e-4);
  EXPECT_NEAR(StudentQuantile(100), 1.9840, 1e-4);
  EXPECT_NEAR(StudentQuantile(1'000'000), 1.95996, 1e-4);
  const MeanFigure figure = MeanOf({1, 2, 3, 4});
  EXPECT_EQ(figure.mean, 2.5);
  EXPECT_NEAR(figure.standard_error, 1.2909944 / 2, 1e-6);
  EXPECT_NEAR(figure.high - figure.mean, 3.1824 * 1.2909944 / 2, 5e-3);
  EXPECT_EQ(MeanOf({0.5}).low, 0.5) << "a single value says nothing of its spread";
}

TEST(OutOfPatienceTest, CountsEvaluationsSinceTheBest) {
  std::vector<v1::EvalResult> evals;
  auto add = [&](double loss) { evals.emplace_back().add_slices()->set_loss(loss); };
  EXPECT_FALSE(OutOfPatience(evals, 1));
  add(3);
  add(2);
  add(2.5);
  EXPECT_FALSE(OutOfPatience(evals, 2));
  EXPECT_TRUE(OutOfPatience(evals, 1));
  EXPECT_FALSE(OutOfPatience(evals, 0)) << "never";
  add(2);
  EXPECT_TRUE(OutOfPatience(evals, 2)) << "an equal loss has not fallen";
  add(1);
  EXPECT_FALSE(OutOfPatience(evals, 1));
  evals.emplace_back();  // of accuracy alone
  EXPECT_FALSE(OutOfPatience(evals, 1));
}

// Of one dataset, sampled once, with accuracy from this reward.
Evaluation BeginOne(fakes::FakePrompts& prompts, const std::string& accuracy) {
  v1::JobConfig job;
  job.mutable_eval()->set_accuracy(accuracy);
  return *Evaluation::Begin({{.name = "", .prompts = &prompts}}, job, 7, /*generates=*/true, /*validates=*/false);
}

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
  Evaluation evaluation = BeginOne(prompts, "math");
  evaluation.items()[0].samples[0].result = Scored({{"math", 1}, {"length", -1}});
  evaluation.items()[1].samples[0].result = Scored({{"math", 0}, {"length", 0}});
  evaluation.items()[2].samples[0].result = Scored({{"code", 1}, {"length", 0}});
  evaluation.items()[3].samples[0].result = Scored({{"code", 0.5}, {"length", 0}});
  evaluation.items()[4].samples[0].given_up = "took too long";
  v1::EvalResult result = evaluation.Result();
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
  Evaluation evaluation = BeginOne(prompts, "numeric");
  for (int i = 0; i < 4; ++i) evaluation.items()[i].samples[0].result = Scored({{"numeric", i == 0 ? 1 : 0}});
  v1::EvalResult result = evaluation.Result();
  EXPECT_DOUBLE_EQ(result.accuracy(), 0.25);
  EXPECT_NEAR(result.standard_error(), std::sqrt(0.25 * 0.75 / 3), 1e-12);
}

}  // namespace
}  // namespace rein::services
