#include "services/controller/ledger.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/controller/training_batch.h"
#include "tests/fakes/fake_prompts.h"
#include "tests/unit/services/controller/store_place.h"

namespace rein::services {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Version kSampler{.lineage = 1, .number = 0};

class LedgerTest : public ::testing::TestWithParam<StoreKind> {
 protected:
  void SetUp() override {
    if (!place_.Make(GetParam(), "ledger_test")) GTEST_SKIP() << fakes::PostgresProcess::why_not();
    Open();
  }

  // As after a crash: what was not committed is gone.
  void Open() {
    ledger_.reset();
    store_.reset();
    store_ = *place_.Open();
    auto ledger = Ledger::Open(*store_, "job");
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    ledger_ = *std::move(ledger);
  }

  uint64_t Issue(uint64_t prompt, uint32_t siblings = 2) {
    v1::GroupId id;
    id.set_prompt(prompt);
    return *ledger_->Issue(id, siblings);
  }

  v1::StoredRollout Stored(uint32_t sibling, uint32_t token = 5) {
    v1::StoredRollout stored;
    v1::Rollout& rollout = *stored.mutable_rollout();
    rollout.set_sibling(sibling);
    rollout.add_prompt_token_ids(1);
    rollout.add_prompt_token_ids(2);
    rollout.mutable_completion()->add_token_ids(token);
    rollout.mutable_completion()->add_behaviour_logprobs(-0.5f);
    v1::VersionSpan* span = rollout.mutable_completion()->add_versions();
    span->mutable_version()->set_lineage(kSampler.lineage);
    span->set_tokens(1);
    return stored;
  }

  v1::RewardResult Reward(double value, const std::string& error = "") {
    v1::RewardResult reward;
    reward.set_reward(value);
    reward.set_error(error);
    return reward;
  }

  // A group that was generated and scored: sibling i has reward i.
  uint64_t ScoredGroup(uint64_t prompt) {
    uint64_t order = Issue(prompt);
    for (uint32_t i : {0, 1}) EXPECT_TRUE(*ledger_->StoreRollout(order, Stored(i)));
    for (uint32_t i : {0, 1}) EXPECT_TRUE(ledger_->Score(order, i, Reward(i), {}).ok());
    EXPECT_TRUE(ledger_->Scored(order).ok());
    return order;
  }

  GroupState StateOf(uint64_t order) { return ledger_->Find(order)->state; }

  StorePlace place_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Ledger> ledger_;
};
REIN_FOR_EACH_STORE(LedgerTest);

TEST_P(LedgerTest, AGroupGoesItsWayAndSurvivesARestartAtEachStep) {
  uint64_t order = Issue(7);
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  EXPECT_EQ(StateOf(order), GroupState::kIssued);
  v1::PolicyVersion version;
  version.set_number(3);
  ASSERT_TRUE(ledger_->Generating(order, version).ok());
  ASSERT_TRUE(*ledger_->StoreRollout(order, Stored(1)));
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  EXPECT_EQ(StateOf(order), GroupState::kGenerating);
  EXPECT_EQ(ledger_->Find(order)->version.number(), 3);
  EXPECT_THAT(ledger_->Find(order)->MissingSiblings(), ElementsAre(0));
  ASSERT_TRUE(*ledger_->StoreRollout(order, Stored(0, /*token=*/9)));
  EXPECT_EQ(StateOf(order), GroupState::kFinished);
  ASSERT_TRUE(ledger_->Score(order, 0, Reward(1), {-1.5f}).ok());
  ASSERT_TRUE(ledger_->Score(order, 1, Reward(0, "timeout"), {-2.5f}).ok());
  ASSERT_TRUE(ledger_->Scored(order).ok());
  ASSERT_TRUE(ledger_->Training(4, {order}).ok());
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  EXPECT_EQ(StateOf(order), GroupState::kTraining);
  EXPECT_EQ(ledger_->Find(order)->Usable(), 1);
  ASSERT_TRUE(ledger_->Consumed(4, {0.25}).ok());
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  EXPECT_EQ(StateOf(order), GroupState::kConsumed);
  EXPECT_THAT(ledger_->GroupsOf(4), ElementsAre(order));
  EXPECT_TRUE(ledger_->open().empty());
  v1::StoredRollout stored = *ledger_->Read(order, 0);
  EXPECT_EQ(stored.rollout().completion().token_ids(0), 9);
  EXPECT_EQ(stored.rollout().reference_logprobs(0), -1.5f);
  EXPECT_EQ(stored.rollout().reward().reward(), 1);
  EXPECT_EQ(stored.rollout().advantage(), 0.25);
  EXPECT_EQ(stored.update(), 4);
  EXPECT_FALSE(ledger_->Read(order, 1)->rollout().has_advantage());  // it was not trained on
}

v1::PolicyFigures Figures(float logprob, float entropy) {
  v1::PolicyFigures figures;
  figures.add_logprobs(logprob);
  figures.add_entropies(entropy);
  return figures;
}

TEST_P(LedgerTest, WhatTheTrainerSaidOfTokensIsKeptWithTheirRollouts) {
  const uint64_t first = ScoredGroup(1), second = ScoredGroup(2);
  ASSERT_TRUE(ledger_->Training(1, {first, second}).ok());
  Ledger::Figures figures;
  *figures.Add() = Figures(-0.75f, 1.5f);
  figures.Add();  // it needed no forward pass
  *figures.Add() = Figures(-2, 0.25f);
  *figures.Add() = Figures(-3, 0.125f);
  ASSERT_TRUE(ledger_->Consumed(1, {1, 2, 3, 4}, 2, figures).ok());
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  v1::Rollout rollout = ledger_->Read(first, 0)->rollout();
  EXPECT_THAT(rollout.policy_logprobs(), ElementsAre(-0.75f));
  EXPECT_THAT(rollout.policy_entropies(), ElementsAre(1.5f));
  EXPECT_EQ(rollout.advantage(), 1);
  EXPECT_THAT(rollout.completion().behaviour_logprobs(), ElementsAre(-0.5f));
  EXPECT_TRUE(ledger_->Read(first, 1)->rollout().policy_logprobs().empty());
  EXPECT_THAT(ledger_->Read(second, 1)->rollout().policy_logprobs(), ElementsAre(-3));

  ASSERT_TRUE(ledger_->RollBack(0).ok());  // trained again: what is said then holds
  ASSERT_TRUE(ledger_->Training(1, {first, second}).ok());
  figures.at(0).set_logprobs(0, -8);
  ASSERT_TRUE(ledger_->Consumed(1, {}, 2, figures).ok());
  EXPECT_THAT(ledger_->Read(first, 0)->rollout().policy_logprobs(), ElementsAre(-8));
}

TEST_P(LedgerTest, AStoredSiblingIsNeverReplaced) {
  uint64_t order = Issue(1);
  EXPECT_TRUE(*ledger_->StoreRollout(order, Stored(0, 5)));
  EXPECT_FALSE(*ledger_->StoreRollout(order, Stored(0, 6)));
  EXPECT_EQ(ledger_->Read(order, 0)->rollout().completion().token_ids(0), 5);
  EXPECT_FALSE(ledger_->StoreRollout(order, Stored(2)).ok());
  EXPECT_EQ(ledger_->Summary().rollouts_stored(), 1);
}

TEST_P(LedgerTest, ARollBackPutsLaterUpdatesBackInTheirOrder) {
  std::vector<uint64_t> orders;
  for (uint64_t prompt : {5, 3, 8}) orders.push_back(ScoredGroup(prompt));
  for (uint64_t update : {1, 2}) {
    ASSERT_TRUE(ledger_->Training(update, {orders[update - 1]}).ok());
    ASSERT_TRUE(ledger_->Consumed(update, {}).ok());
  }
  ASSERT_TRUE(ledger_->Training(3, {orders[2]}).ok());
  ASSERT_TRUE(ledger_->RollBack(1).ok());
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  EXPECT_EQ(StateOf(orders[0]), GroupState::kConsumed);
  EXPECT_EQ(StateOf(orders[1]), GroupState::kScored);
  EXPECT_EQ(StateOf(orders[2]), GroupState::kScored);
  EXPECT_EQ(ledger_->consumed(), 1);
  EXPECT_EQ(ledger_->open().begin()->first, orders[1]);
}

TEST_P(LedgerTest, APromptIsIssuedOncePerPass) {
  Issue(4);
  v1::GroupId again;
  again.set_prompt(4);
  absl::Status refused = ledger_->Issue(again, 2).status();
  if (refused.ok()) refused = store_->Commit();  // PostgreSQL's writes go out with it
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists) << refused;
}

TEST_P(LedgerTest, StepsOutOfTurnAreRefusedAndNamed) {
  uint64_t order = Issue(1);
  EXPECT_EQ(ledger_->Training(1, {order}).message(), "ledger: cannot train group 0, it is issued");
  EXPECT_EQ(ledger_->Scored(order).message(), "ledger: cannot close group 0, it is issued");
  EXPECT_EQ(ledger_->Scored(9).message(), "ledger: cannot close unknown group 9");
  ASSERT_TRUE(ledger_->Drop(order, "no reason").ok());
  EXPECT_FALSE(ledger_->Drop(order, "twice").ok());
}

TEST_P(LedgerTest, TheSummaryCountsAndListsWhatWasDropped) {
  Issue(1);
  ScoredGroup(2);
  uint64_t dropped = Issue(3);
  ASSERT_TRUE(ledger_->Drop(dropped, "score: took too long").ok());
  v1::LedgerSummary summary = ledger_->Summary();
  EXPECT_EQ(summary.in_flight(), 1);
  EXPECT_EQ(summary.scored(), 1);
  ASSERT_EQ(summary.dropped_size(), 1);
  EXPECT_EQ(summary.dropped(0).group().prompt(), 3);
  EXPECT_EQ(summary.dropped(0).reason(), "score: took too long");
  EXPECT_EQ(summary.duplicates(), 0);
}

// What scorers say of steps is earned by the tokens that end them.
class StepPrompts : public fakes::FakePrompts {
 public:
  StepPrompts() : FakePrompts(20) {}
  absl::StatusOr<std::vector<uint32_t>> TextEnds(const std::vector<uint32_t>& ids) override {
    std::vector<uint32_t> ends;
    for (size_t i = 0; i < ids.size(); ++i) ends.push_back(static_cast<uint32_t>(3 * (i + 1)));
    return ends;
  }
};

TEST_P(LedgerTest, StepsOfACompletionEarnTheirOwn) {
  const uint64_t order = Issue(4, 2);
  for (uint32_t i : {0, 1}) {
    v1::StoredRollout stored = Stored(i);
    auto* ids = stored.mutable_rollout()->mutable_completion()->mutable_token_ids();
    while (ids->size() < 4) ids->Add(5);  // text ends at bytes 3, 6, 9, 12
    ASSERT_TRUE(*ledger_->StoreRollout(order, stored));
  }
  v1::RewardResult result;
  v1::RewardPart* judged = result.add_parts();
  judged->set_score(1.5);
  judged->set_weight(2);
  for (auto [end, reward] : {std::pair{4u, 0.5}, {9u, 1.0}}) {
    v1::StepReward* step = judged->add_steps();
    step->set_end(end);
    step->set_reward(reward);
  }
  v1::RewardPart* other = result.add_parts();
  other->set_score(0.25);
  other->set_weight(1);
  result.set_reward(3.25);
  ASSERT_TRUE(ledger_->Score(order, 0, result, {}).ok());
  result.set_gated_by("format");  // then the reward is no sum of parts
  ASSERT_TRUE(ledger_->Score(order, 1, result, {}).ok());
  ASSERT_TRUE(ledger_->Scored(order).ok());
  StepPrompts prompts;
  TrainingBatch batch = *BatchOfRollouts(*ledger_, {order}, 1, {.prompts = &prompts});
  EXPECT_THAT(batch.sequences[0].target_rewards(), ElementsAre(0, 1, 2, 0.25));
  EXPECT_EQ(batch.sequences[1].target_rewards_size(), 0);
}

TEST_P(LedgerTest, ABatchHasTheUsableSiblingsInOrder) {
  uint64_t first = ScoredGroup(4);
  uint64_t second = Issue(6, 3);
  for (uint32_t i : {0, 1, 2}) ASSERT_TRUE(*ledger_->StoreRollout(second, Stored(i)));
  ASSERT_TRUE(ledger_->Score(second, 0, Reward(2), {}).ok());
  ASSERT_TRUE(ledger_->Score(second, 1, Reward(0, "timeout"), {}).ok());
  ASSERT_TRUE(ledger_->Score(second, 2, Reward(2), {}).ok());
  ASSERT_TRUE(ledger_->Scored(second).ok());
  TrainingBatch batch = *BatchOfRollouts(*ledger_, {first, second}, /*update=*/1);
  ASSERT_EQ(batch.sequences.size(), 4);
  EXPECT_EQ(batch.sequences[0].id(), "0/0");
  EXPECT_EQ(batch.sequences[3].id(), "0/2");
  EXPECT_EQ(batch.sequences[3].group(), 1);
  EXPECT_EQ(batch.sequences[1].reward(), 1);
  EXPECT_EQ(batch.sequences[1].loss_mask(), std::string("\0\0\1", 3));
  EXPECT_THAT(batch.sequences[1].token_ids(), ElementsAre(1, 2, 5));
  auto metric = [&](const std::string& name) {
    for (const v1::Metric& m : batch.metrics) {
      if (m.name() == name) return m.value();
    }
    return -1.0;
  };
  EXPECT_FALSE(batch.sequences[0].on_policy()) << "it was not said which weights are trained";
  TrainingBatch of_these = *BatchOfRollouts(*ledger_, {first, second}, 1, {.current = kSampler});
  TrainingBatch of_others = *BatchOfRollouts(*ledger_, {first, second}, 1, {.current = Version{kSampler.lineage, kSampler.number + 1}});
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(of_these.sequences[i].on_policy());
    EXPECT_FALSE(of_others.sequences[i].on_policy());
  }
  EXPECT_EQ(metric("reward"), 1.25);
  EXPECT_EQ(metric("zero_signal_ratio"), 0.5);
  EXPECT_EQ(metric("completion_tokens"), 1);
  EXPECT_EQ(metric("tokens"), 12);
}

TEST_P(LedgerTest, ABatchOfTextsMasksThePrompt) {
  fakes::FakePrompts prompts(10);
  uint64_t order = Issue(3, /*siblings=*/0);
  EXPECT_EQ(StateOf(order), GroupState::kScored);
  TrainingBatch batch = *BatchOfTexts(*ledger_, prompts, {order}, /*train_on_prompt=*/false);
  EXPECT_THAT(batch.sequences[0].token_ids(), ElementsAre(4, 7, 9, 2));
  EXPECT_EQ(batch.sequences[0].loss_mask(), std::string("\0\0\1\1", 4));
  batch = *BatchOfTexts(*ledger_, prompts, {order}, /*train_on_prompt=*/true);
  EXPECT_EQ(batch.sequences[0].loss_mask(), std::string("\0\1\1\1", 4));
}

}  // namespace
}  // namespace rein::services
