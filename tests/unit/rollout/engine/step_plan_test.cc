#include "rollout/engine/step_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::rollout {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A sequence that decodes: all but its last token are computed, in pages of 4.
RunningSequence Decoding(uint64_t id, int32_t known) {
  int32_t pages = (known - 1 + 3) / 4;
  return {.id = id,
          .known_tokens = known,
          .computed_tokens = known - 1,
          .pages = pages,
          .own_pages = pages};
}

EngineSnapshot Snapshot(int32_t available) {
  return {.available_pages = available, .page_tokens = 4, .max_running = 8, .step_tokens = 16};
}

TEST(PlanStepTest, NothingToDo) {
  StepPlan plan = PlanStep(Snapshot(10));
  EXPECT_THAT(plan.work, IsEmpty());
}

TEST(PlanStepTest, EveryRunningSequenceDecodesOneToken) {
  EngineSnapshot s = Snapshot(10);
  s.running = {Decoding(1, 5), Decoding(2, 7)};
  EXPECT_THAT(PlanStep(s).work, ElementsAre(StepWork{1, 1}, StepWork{2, 1}));
}

TEST(PlanStepTest, LongPromptsAreComputedInChunks) {
  EngineSnapshot s = Snapshot(100);
  s.waiting = {{.id = 1, .known_tokens = 40}};
  StepPlan plan = PlanStep(s);
  EXPECT_THAT(plan.admitted, ElementsAre(1));
  EXPECT_THAT(plan.work, ElementsAre(StepWork{1, 16}));
  s.waiting.clear();
  s.running = {{.id = 1, .known_tokens = 40, .computed_tokens = 32, .pages = 8, .own_pages = 8}};
  EXPECT_THAT(PlanStep(s).work, ElementsAre(StepWork{1, 8}));
}

TEST(PlanStepTest, DecodingGoesOnBesidePrefill) {
  EngineSnapshot s = Snapshot(100);
  s.running = {{.id = 1, .known_tokens = 100, .computed_tokens = 16, .pages = 4, .own_pages = 4},
               Decoding(2, 5),
               Decoding(3, 5)};
  EXPECT_THAT(PlanStep(s).work, ElementsAre(StepWork{1, 14}, StepWork{2, 1}, StepWork{3, 1}));
}

TEST(PlanStepTest, AdmitsInOrderWhileAllOfItFits) {
  EngineSnapshot s = Snapshot(4);
  s.waiting = {
      {.id = 1, .known_tokens = 5}, {.id = 2, .known_tokens = 9}, {.id = 3, .known_tokens = 1}};
  StepPlan plan = PlanStep(s);
  EXPECT_THAT(plan.admitted, ElementsAre(1)) << "2 wants 3 pages; 3 does not overtake it";
  s.max_running = 0;
  EXPECT_THAT(PlanStep(s).admitted, IsEmpty());
}

TEST(PlanStepTest, CachedTokensAreNotComputedAgain) {
  EngineSnapshot s = Snapshot(4);
  s.waiting = {{.id = 1, .known_tokens = 14, .cached_tokens = 12, .unused_pages = 3}};
  EXPECT_THAT(PlanStep(s).work, ElementsAre(StepWork{1, 2}));
  s.available_pages = 3;
  EXPECT_THAT(PlanStep(s).admitted, IsEmpty()) << "remembered pages come out of the available ones";
  s.waiting[0].unused_pages = 0;
  EXPECT_THAT(PlanStep(s).admitted, ElementsAre(1)) << "unless somebody uses them already";
}

TEST(PlanStepTest, BlockedOnesAreSteppedOver) {
  EngineSnapshot s = Snapshot(10);
  s.waiting = {{.id = 1, .known_tokens = 5, .blocked = true}, {.id = 2, .known_tokens = 5}};
  EXPECT_THAT(PlanStep(s).admitted, ElementsAre(2));
}

TEST(PlanStepTest, OnlyStartedOnesWhileWeightsWait) {
  EngineSnapshot s = Snapshot(10);
  s.admit_new = false;
  s.waiting = {{.id = 1, .known_tokens = 5}, {.id = 2, .known_tokens = 5, .started = true}};
  EXPECT_THAT(PlanStep(s).admitted, ElementsAre(2));
}

TEST(PlanStepTest, TheYoungestGivesItsPagesBack) {
  EngineSnapshot s = Snapshot(0);
  s.running = {Decoding(1, 5), Decoding(2, 9), Decoding(3, 9)};  // each needs a new page
  s.waiting = {{.id = 4, .known_tokens = 1}};
  StepPlan plan = PlanStep(s);
  EXPECT_THAT(plan.preempted, ElementsAre(3));
  EXPECT_THAT(plan.work, ElementsAre(StepWork{1, 1}, StepWork{2, 1}));
  EXPECT_THAT(plan.admitted, IsEmpty()) << "nobody is admitted while others are preempted";
}

TEST(PlanStepTest, TheLastMayHaveToPreemptItself) {
  EngineSnapshot s = Snapshot(0);
  s.running = {Decoding(1, 4), Decoding(2, 5)};
  StepPlan plan = PlanStep(s);
  EXPECT_THAT(plan.preempted, ElementsAre(2));
  EXPECT_THAT(plan.work, ElementsAre(StepWork{1, 1})) << "its page has room";
}

TEST(PlanStepTest, SharedPagesBringNothingBack) {
  EngineSnapshot s = Snapshot(0);
  s.running = {Decoding(1, 5), Decoding(2, 5), Decoding(3, 5)};
  s.running[2].own_pages = 0;
  StepPlan plan = PlanStep(s);
  EXPECT_THAT(plan.preempted, ElementsAre(3, 2));
  EXPECT_THAT(plan.work, ElementsAre(StepWork{1, 1}));
}

TEST(PlanStepTest, APromptTakesThePagesThatAreLeft) {
  EngineSnapshot s = Snapshot(1);
  s.running = {{.id = 1, .known_tokens = 30, .computed_tokens = 8, .pages = 2, .own_pages = 2}};
  EXPECT_THAT(PlanStep(s).work, ElementsAre(StepWork{1, 4}));
}

TEST(PlanStepTest, TheBudgetBindsDecodingToo) {
  EngineSnapshot s = Snapshot(10);
  s.step_tokens = 2;
  s.running = {Decoding(1, 5), Decoding(2, 5), Decoding(3, 5)};
  EXPECT_THAT(PlanStep(s).work, ElementsAre(StepWork{1, 1}, StepWork{2, 1}));
}

}  // namespace
}  // namespace rein::rollout
