// What becomes of groups that fall behind while others are trained on, and of those in flight when weights change.

#include <algorithm>
#include <map>
#include <optional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/services/controller/run_loop_fixture.h"

namespace rein::services {
namespace {

using ::testing::ElementsAre;

class StaleGroupsTest : public RunLoopTest {
 protected:
  void SetUp() override {
    RunLoopTest::SetUp();
    job_.config.mutable_grpo()->set_updates(6);
    job_.config.mutable_grpo()->set_staleness(1);
  }

  // The first prompt that is asked for is not answered before Release().
  void HoldTheFirst() {
    services_.holds = [this](const v1::GenerateRequest& request) {
      if (!held_.has_value()) held_ = request.group().SerializeAsString();
      return request.group().SerializeAsString() == *held_;
    };
  }

  // So many steps and seconds: less than a lease.
  void Steps(int count) {
    for (int i = 0; i < count; ++i) {
      run_->Step();
      services_.Pump();
      clock_.AdvanceTo(clock_.Now() + absl::Seconds(1));
    }
  }

  // How far behind each consumed group was, by order of issue.
  std::map<uint64_t, int64_t> Lags() {
    std::map<uint64_t, int64_t> lags;
    for (const auto& [order, group] : run_->ledger().groups()) {
      if (group.state != GroupState::kConsumed) continue;
      lags[order] = static_cast<int64_t>(group.update) - 1 - static_cast<int64_t>(group.version.number());
    }
    return lags;
  }

  double Sum(const std::string& name) {
    double sum = 0;
    for (const v1::UpdateRecord& update : recorder_.updates) {
      for (const v1::Metric& metric : update.metrics()) sum += metric.name() == name ? metric.value() : 0;
    }
    return sum;
  }

  std::optional<std::string> held_;
};

TEST_F(StaleGroupsTest, AnUpdateWaitsForItsSlowestUnlessToldOtherwise) {
  HoldTheFirst();
  Begin();
  Steps(50);
  EXPECT_EQ(job_.updates_done, 0) << "the first group is of the first update";
  services_.Release();
  EXPECT_EQ(Run().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(Lags()[0], 0);
}

TEST_F(StaleGroupsTest, WhatFallsTooFarBehindIsGivenUp) {
  job_.config.mutable_grpo()->set_when_stale(v1::STALE_POLICY_DROP);
  HoldTheFirst();
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(run_->ledger().Summary().consumed(), 12) << "another prompt took its place";
  const Group& first = *run_->ledger().Find(0);
  EXPECT_EQ(first.state, GroupState::kDropped);
  EXPECT_EQ(first.reason, "when_stale: begun by version 0, and update 3 takes version 1 or later");
  ASSERT_EQ(services_.aborted.size(), 1) << "its generator was told";
  EXPECT_EQ(services_.aborted[0].SerializeAsString(), held_);
  EXPECT_GE(Sum("stale_groups"), 1);
  for (const auto& [order, lag] : Lags()) EXPECT_LE(lag, 1) << order;
  services_.Release();  // what comes too late is nobody's
  services_.Pump();
}

TEST_F(StaleGroupsTest, AScoredGroupThatNoUpdateTookInTimeIsGivenUpToo) {
  job_.config.mutable_grpo()->set_when_stale(v1::STALE_POLICY_DROP);
  HoldTheFirst();
  Begin();
  Run([&] { return job_.updates_done == 2; });
  services_.Release();  // in the same moment: the next step drops it before it is looked at
  EXPECT_EQ(Run().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(run_->ledger().Find(0)->state, GroupState::kDropped);
  EXPECT_EQ(run_->ledger().Summary().consumed(), 12);
}

TEST_F(StaleGroupsTest, NothingIsGivenUpWhereTheLossWeighsIt) {
  job_.config.mutable_grpo()->set_when_stale(v1::STALE_POLICY_CORRECT);
  HoldTheFirst();
  Begin();
  Run([&] { return job_.updates_done == 4; });
  EXPECT_EQ(job_.updates_done, 4) << "others are trained on meanwhile";
  services_.Release();
  EXPECT_EQ(Run().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(Lags()[0], 4);
  EXPECT_TRUE(services_.aborted.empty());
  EXPECT_THAT(DropReasons(), testing::Not(testing::Contains(testing::HasSubstr("when_stale"))));
}

// The oldest sibling counts, also when others were asked for again later.
TEST_F(StaleGroupsTest, AGroupIsAsOldAsItsOldestSibling) {
  auto ledger = *Ledger::Open(*store_, "job");
  v1::GroupId id;
  id.set_prompt(3);
  const uint64_t order = *ledger->Issue(id, 2);
  v1::PolicyVersion version;
  version.set_number(2);
  ASSERT_TRUE(ledger->Generating(order, version).ok());
  version.set_number(4);
  ASSERT_TRUE(ledger->Generating(order, version).ok());
  EXPECT_EQ(ledger->Find(order)->version.number(), 4) << "nothing was kept of the first try";
  v1::StoredRollout stored;
  *stored.mutable_rollout()->mutable_group() = id;
  ASSERT_TRUE(*ledger->StoreRollout(order, stored));
  version.set_number(5);
  ASSERT_TRUE(ledger->Generating(order, version).ok());
  EXPECT_EQ(ledger->Find(order)->version.number(), 4);
}

// A trainer that was lost goes back: what was trained on first is trained on first again, whatever has come since.
TEST_F(StaleGroupsTest, BatchesThatAreMadeAgainAreTheSame) {
  auto ledger = *Ledger::Open(*store_, "job");
  for (uint64_t order = 0; order < 6; ++order) {
    v1::GroupId id;
    id.set_prompt(order);
    ASSERT_EQ(*ledger->Issue(id, 0), order);  // a text: scored at once
  }
  ASSERT_TRUE(ledger->Training(1, {2, 3}).ok());
  ASSERT_TRUE(ledger->Consumed(1, {}).ok());
  ASSERT_TRUE(ledger->Training(2, {1, 5}).ok());
  EXPECT_THAT(ledger->Ready(false), ElementsAre(0, 4));
  ASSERT_TRUE(ledger->RollBack(0).ok());
  ASSERT_TRUE(store_->Commit().ok());
  for (int restart = 0; restart < 2; ++restart) {
    EXPECT_THAT(ledger->Ready(false), ElementsAre(2, 3, 1, 5, 0, 4));
    EXPECT_THAT(ledger->Ready(true), ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_TRUE(ledger->GroupsOf(1).empty());
    ledger = *Ledger::Open(*store_, "job");
  }
}

TEST_F(StaleGroupsTest, GeneratorsAreToldToComputeKeysAndValuesAnew) {
  std::vector<v1::InFlightPolicy> told;
  services_.on_publish = [&](const v1::PublishRequest& request) { told.push_back(request.in_flight()); };
  job_.config.mutable_rollout()->set_in_flight(v1::IN_FLIGHT_RECOMPUTE);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  ASSERT_GE(told.size(), 5);
  EXPECT_EQ(std::count(told.begin(), told.end(), v1::IN_FLIGHT_POLICY_RECOMPUTE), static_cast<int64_t>(told.size()));
}

// A group of update 2 is held until the trainer has made version 1: that must not be published before it has ended.
TEST_F(StaleGroupsTest, GeneratorsFinishBeforeTheyTakeWeights) {
  for (const bool finish : {true, false}) {
    SetUp();
    job_.updates_done = 0;
    job_.config.mutable_rollout()->set_in_flight(finish ? v1::IN_FLIGHT_FINISH : v1::IN_FLIGHT_CONTINUE);
    train_ = std::make_unique<fakes::FakePrompts>(3);  // whose rewards never fail
    int asked = 0, published = 0;
    services_.holds = [&](const v1::GenerateRequest&) { return ++asked == 4; };
    services_.on_publish = [&](const v1::PublishRequest&) { published += asked >= 4; };
    Begin();
    Steps(50);
    EXPECT_EQ(job_.updates_done, 1);
    EXPECT_EQ(published, finish ? 0 : 1);
    services_.Release();
    EXPECT_EQ(Run().state, v1::JOB_STATE_SUCCEEDED);
    EXPECT_GE(published, 4);
    run_.reset();
  }
}

}  // namespace
}  // namespace rein::services
