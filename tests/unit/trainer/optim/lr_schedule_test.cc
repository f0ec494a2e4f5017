#include "trainer/optim/lr_schedule.h"

#include <gtest/gtest.h>

namespace rein::trainer {
namespace {

using Curve = LrSchedule::Curve;

TEST(LrScheduleTest, WarmsUpLinearlyThenHolds) {
  LrSchedule s{.peak = 4, .warmup = 4, .max_updates = 10};
  EXPECT_DOUBLE_EQ(LearningRate(s, 1), 1);
  EXPECT_DOUBLE_EQ(LearningRate(s, 4), 4);
  EXPECT_DOUBLE_EQ(LearningRate(s, 10), 4);
}

TEST(LrScheduleTest, FallsToTheFinalShare) {
  LrSchedule linear{.curve = Curve::kLinear, .peak = 2, .warmup = 0, .max_updates = 10, .final = 0.5};
  EXPECT_DOUBLE_EQ(LearningRate(linear, 5), 1.5);
  EXPECT_DOUBLE_EQ(LearningRate(linear, 10), 1);
  EXPECT_DOUBLE_EQ(LearningRate(linear, 99), 1);
  LrSchedule cosine{.curve = Curve::kCosine, .peak = 2, .max_updates = 10};
  EXPECT_DOUBLE_EQ(LearningRate(cosine, 5), 1);
  EXPECT_NEAR(LearningRate(cosine, 10), 0, 1e-12);
  LrSchedule wsd{.curve = Curve::kWsd, .peak = 2, .max_updates = 10, .decay = 4};
  EXPECT_DOUBLE_EQ(LearningRate(wsd, 6), 2);
  EXPECT_DOUBLE_EQ(LearningRate(wsd, 8), 1);
  EXPECT_DOUBLE_EQ(LearningRate(wsd, 10), 0);
}

}  // namespace
}  // namespace rein::trainer
