#include "services/controller/decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::services {
namespace {

using ::testing::ElementsAre;

constexpr Version kCurrent = {.lineage = 2, .number = 5};

ActorView Generator(const std::string& name, Version version = kCurrent) {
  return {.name = name, .loaded = true, .has_weights = true, .version = version};
}

// A job in the middle of its run with everything loaded and up to date.
Snapshot Healthy() {
  Snapshot s;
  s.now = absl::FromUnixSeconds(1000);
  s.plan = {.updates = 10, .groups_per_update = 4};
  s.current = kCurrent;
  s.more_prompts = true;
  s.trainer = {.present = true, .known = true, .loaded = true, .version = kCurrent};
  s.generators = {Generator("g0")};
  s.rewarders = {{.name = "w0", .loaded = true, .has_weights = true}};
  return s;
}

WaitingGroup Waiting(uint64_t order) { return {.order = order, .oldest_version = 5}; }

TEST(DecisionTest, IssuesTheGroupsOfTheNextUpdate) {
  Snapshot s = Healthy();
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kIssue);
  EXPECT_EQ(action.count, 4);
  s.open_groups = 4;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
}

TEST(DecisionTest, StalenessLetsItIssueAheadButNotBeyondTheLastUpdate) {
  Snapshot s = Healthy();
  s.plan.staleness = 2;
  EXPECT_EQ(NextAction(s).count, 12);
  s.generators = {Generator("g0", {2, 4})};  // not published yet: one update less
  s.trainer.busy = true;
  EXPECT_EQ(NextAction(s).count, 8);
  s.plan.updates = 6;
  EXPECT_EQ(NextAction(s).count, 4);
}

TEST(DecisionTest, WhatIsStaleIsGivenUpBeforeOthersAreDrawn) {
  Snapshot s = Healthy();
  s.plan.staleness = 1;
  s.plan.out_of_order = s.plan.drops_stale = true;
  s.open_groups = 6;
  s.stale = {Waiting(3), Waiting(4)};
  const Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kDropStale);
  ASSERT_EQ(action.groups.size(), 2);
  EXPECT_EQ(action.groups[1].order, 4);
  s.stale.clear();
  s.open_groups = 4;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kIssue);
  EXPECT_EQ(NextAction(s).count, 4);
}

TEST(DecisionTest, AGeneratorThatDrainsTakesNothingNewAndThenTheWeights) {
  Snapshot s = Healthy();
  s.plan.staleness = 1;
  s.plan.drains = true;
  s.open_groups = 8;
  s.to_generate = {{.order = 7, .oldest_version = 4}};
  s.generators = {Generator("g0", {2, 4})};
  s.generators[0].in_flight = 3;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
  s.generators[0].in_flight = 0;
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kPublish);
  EXPECT_THAT(action.actors, ElementsAre("g0"));
  s.generators = {Generator("g0")};
  s.generators[0].in_flight = 3;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kGenerate) << "under the newest weights it takes more";
  s.plan.drains = false;
  s.generators = {Generator("g0", {2, 4})};
  s.generators[0].in_flight = 3;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kGenerate);
  s.to_generate.clear();
  EXPECT_EQ(NextAction(s).kind, ActionKind::kPublish) << "while they run";
}

TEST(DecisionTest, WeightsOfAnotherLineageAllowNothing) {
  Snapshot s = Healthy();
  s.generators = {Generator("g0", {1, 5})};
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kPublish);
  EXPECT_THAT(action.actors, ElementsAre("g0"));
}

TEST(DecisionTest, GeneratesOnTheLeastLoadedInEqualShares) {
  Snapshot s = Healthy();
  s.open_groups = 4;
  s.to_generate = {Waiting(0), Waiting(1), Waiting(2), Waiting(3)};
  s.generators = {Generator("g0"), Generator("g1")};
  s.generators[0].in_flight = 3;
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kGenerate);
  EXPECT_EQ(action.actor, "g1");
  EXPECT_EQ(action.groups.size(), 2);
}

TEST(DecisionTest, ANeverStalerGeneratorIsUsed) {
  Snapshot s = Healthy();
  s.open_groups = 4;
  s.trainer.busy = true;
  s.to_generate = {Waiting(0)};
  s.generators = {Generator("old", {2, 4})};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
  s.to_generate[0].oldest_version = 4;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kGenerate);
}

TEST(DecisionTest, TrainsWhenTheFirstGroupsAreScored) {
  Snapshot s = Healthy();
  s.open_groups = s.ready_groups = 4;
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kTrain);
  EXPECT_EQ(action.count, 4);
  s.ready_groups = 3;  // the fourth is scored, but a group before it is not
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
}

TEST(DecisionTest, TheLastUpdateOfAPassMayBeSmaller) {
  Snapshot s = Healthy();
  s.more_prompts = false;
  s.open_groups = s.ready_groups = 3;
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kTrain);
  EXPECT_EQ(action.count, 3);
}

TEST(DecisionTest, ALostTrainerIsAskedThenLoaded) {
  Snapshot s = Healthy();
  s.open_groups = 4;
  s.trainer = {};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
  EXPECT_EQ(WaitsFor(s), "waits for a trainer");
  s.trainer.present = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kAskTrainer);
  s.trainer.known = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kLoadTrainer);
  s.trainer.loaded = true;
  s.trainer.version = {.lineage = 2, .number = 4};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kLoadTrainer);
}

TEST(DecisionTest, ATrainerWhoseAnswerWasLostIsAskedForItAgain) {
  Snapshot s = Healthy();
  s.open_groups = 4;
  s.training_pending = true;
  s.trainer.version = {.lineage = 2, .number = 6};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kTrain);
  s.training_pending = false;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kLoadTrainer);
}

TEST(DecisionTest, StoredGroupsAreTrainedOnBeforeAnythingIsPublished) {
  Snapshot s = Healthy();
  s.open_groups = s.ready_groups = 8;
  s.generators = {Generator("g0", {1, 7})};  // from before the restore
  EXPECT_EQ(NextAction(s).kind, ActionKind::kTrain);
}

TEST(DecisionTest, HeldOutDataComesBeforeTheNextUpdate) {
  Snapshot s = Healthy();
  s.plan.evaluates = true;
  s.plan.eval_every = 5;
  s.open_groups = s.ready_groups = 4;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kEvaluate);
  s.evaluating = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
  s.evaluating = false;
  s.evaluated = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kTrain);
}

TEST(DecisionTest, SavesWhenItIsDue) {
  Snapshot s = Healthy();
  s.plan.checkpoint_every = 5;
  s.open_groups = s.ready_groups = 4;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kSave);
  s.has_checkpoint = true;
  s.checkpoint_update = 5;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kTrain);
}

TEST(DecisionTest, EndsWithEvaluationCheckpointAndExport) {
  Snapshot s = Healthy();
  s.plan.evaluates = true;
  s.current = s.trainer.version = {.lineage = 2, .number = 10};
  s.generators = {Generator("g0", {2, 9})};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kPublish);
  s.generators = {Generator("g0", s.current)};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kEvaluate);
  s.evaluated = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kSave);
  s.has_checkpoint = true;
  s.checkpoint_update = 10;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kExport);
  s.exported = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kFinish);
}

// generate: no update is wanted, and the job is over when nothing is open.
TEST(DecisionTest, WhatIsGeneratedIsCollectedAndWritten) {
  Snapshot s = Healthy();
  s.plan = {.kind = Plan::Kind::kCollect, .groups_per_update = 4, .one_pass = true, .scores = false};
  s.current = s.trainer.version = {.lineage = 2, .number = 0};
  s.generators = {{.name = "g0"}};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kLoadGenerator);
  s.generators[0].loaded = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kPublish);
  s.generators = {Generator("g0", s.current)};
  Action issue = NextAction(s);
  EXPECT_EQ(issue.kind, ActionKind::kIssue);
  EXPECT_EQ(issue.count, 4u);
  s.open_groups = 4;
  s.ready_groups = 2;
  Action collect = NextAction(s);
  EXPECT_EQ(collect.kind, ActionKind::kCollect);
  EXPECT_EQ(collect.count, 2u);
  s.open_groups = s.ready_groups = 0;
  s.more_prompts = false;
  s.rewarders.clear();
  EXPECT_EQ(WaitsFor(s), "") << "nobody scores";
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWriteResults);
  s.exported = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kFinish);
}

TEST(DecisionTest, TextsAreScoredByReferencesAlone) {
  Snapshot s = Healthy();
  s.plan = {.kind = Plan::Kind::kCollect, .groups_per_update = 4, .one_pass = true, .reference = true,
            .generates = false, .scores = false};
  s.current = s.trainer.version = {.lineage = 2, .number = 0};
  s.generators.clear();
  s.references = {{.name = "r0", .loaded = true}};
  EXPECT_EQ(WaitsFor(s), "");
  EXPECT_EQ(NextAction(s).kind, ActionKind::kIssue);
  s.open_groups = 4;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kPublish) << "the weights to score with";
  s.references[0].has_weights = true;
  s.to_reference = {Waiting(0)};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kScoreReference);
}

TEST(DecisionTest, HeldOutAnswersNeedTheTrainerOnly) {
  Snapshot s = Healthy();
  s.plan = {.kind = Plan::Kind::kTexts, .updates = 10, .groups_per_update = 4, .generates = false, .scores = false,
            .validates = true, .eval_every = 5};
  s.generators.clear();
  s.rewarders.clear();
  s.open_groups = s.ready_groups = 4;
  EXPECT_EQ(WaitsFor(s), "");
  EXPECT_EQ(NextAction(s).kind, ActionKind::kEvaluate);
  s.evaluating = s.validating = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kValidate);
  s.trainer.busy = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
  s.trainer.busy = s.evaluating = s.validating = false;
  s.evaluated = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kTrain);
}

TEST(DecisionTest, RewardModelsAreLoadedBeforeAnythingIsScored) {
  Snapshot s = Healthy();
  s.plan.reward_models = true;
  s.open_groups = 4;
  s.to_score = {Waiting(0)};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
  EXPECT_EQ(WaitsFor(s), "waits for a reference service");
  s.references = {{.name = "r0"}};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kLoadReference);
  s.references[0].busy = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
  s.references[0] = {.name = "r0", .loaded = true};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kScore) << "the policy's weights do not matter";
}

TEST(DecisionTest, AReferenceWithoutWeightsGetsTheInitialOnes) {
  Snapshot s = Healthy();
  s.plan.reference = true;
  s.open_groups = 4;
  s.references = {{.name = "r0"}};
  EXPECT_EQ(NextAction(s).kind, ActionKind::kLoadReference);
  s.references[0].loaded = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kSave);  // the trainer must find its way back
  s.has_checkpoint = true;
  s.checkpoint_update = 5;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kLoadInitial);
  s.trainer.version = {.lineage = 3, .number = 0};
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kPublish);
  EXPECT_THAT(action.actors, ElementsAre("r0"));
  s.references[0].has_weights = true;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kLoadTrainer);
}

TEST(DecisionTest, ScoringIsBoundedPerScorer) {
  Snapshot s = Healthy();
  s.open_groups = 100;
  for (uint64_t i = 0; i < 100; ++i) s.to_score.push_back(Waiting(i));
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kScore);
  EXPECT_EQ(action.groups.size(), 32);
  s.rewarders[0].in_flight = 32;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kWait);
}

TEST(DecisionTest, WhatFailedIsTriedAgainAtItsTime) {
  Snapshot s = Healthy();
  s.open_groups = 4;
  s.to_generate = {Waiting(0)};
  s.to_generate[0].not_before = s.now + absl::Seconds(3);
  Action action = NextAction(s);
  EXPECT_EQ(action.kind, ActionKind::kWait);
  EXPECT_EQ(action.deadline, s.now + absl::Seconds(3));
}

TEST(DecisionTest, TextsNeedNoGenerator) {
  Snapshot s = Healthy();
  s.plan.kind = Plan::Kind::kTexts;
  s.generators.clear();
  s.rewarders.clear();
  EXPECT_EQ(NextAction(s).kind, ActionKind::kIssue);
  s.open_groups = s.ready_groups = 4;
  EXPECT_EQ(NextAction(s).kind, ActionKind::kTrain);
  EXPECT_EQ(WaitsFor(s), "");
}

TEST(DecisionTest, SaysWhatIsMissing) {
  Snapshot s = Healthy();
  s.rewarders.clear();
  EXPECT_EQ(WaitsFor(s), "waits for a reward service");
  s.plan.reference = true;
  EXPECT_EQ(WaitsFor(s), "waits for a reference service");
  s.generators.clear();
  EXPECT_EQ(WaitsFor(s), "waits for a rollout service");
}

}  // namespace
}  // namespace rein::services
