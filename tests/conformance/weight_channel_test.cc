// Every weight transport has to do this, over real gRPC on loopback: all bytes or nothing, digests on
// both sides, and no receiver holds up the others.

#include "common/weights/channel/weight_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "absl/time/clock.h"
#include "common/rpc/server.h"
#include "common/sync/clock.h"
#include "common/weights/channel/weight_service.h"
#include "common/weights/digest.h"

namespace rein::weights {
namespace {

using ::testing::HasSubstr;

Registry SomeRegistry(int64_t width = 700) {
  return *Registry::Create({{"embedding", {1000, width}}, {"norm", {width}}, {"head", {width, 1000}}});
}

// Two host arenas; can be told to damage or to delay what arrives.
class HostArenas final : public ReceivingArenas {
 public:
  explicit HostArenas(const Registry& registry) : plan_(PlanOf(registry, "float32")) {
    for (auto& arena : arenas_) arena.resize(plan_.arena_bytes);
  }
  const WeightPlan& plan() const override { return plan_; }
  absl::Status Write(uint64_t offset, const char* bytes, size_t size) override {
    if (freeze_ > absl::ZeroDuration()) absl::SleepFor(freeze_);
    std::memcpy(arenas_[1 - active_].data() + offset, bytes, size);
    if (offset <= flip_byte_ && flip_byte_ < offset + size) arenas_[1 - active_][flip_byte_] ^= 4;
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<uint64_t>> IdleDigests() override {
    std::vector<uint64_t> digests;
    for (const auto& p : plan_.parameters) {
      digests.push_back(Digest(arenas_[1 - active_].data() + p.offset_bytes, p.size_bytes));
    }
    return digests;
  }
  absl::Status TakeIntoUse(const Version&, InFlight in_flight) override {
    in_flight_ = in_flight;
    active_ = 1 - active_;
    ++swaps_;
    return absl::OkStatus();
  }

  WeightPlan plan_;
  std::vector<char> arenas_[2];
  int active_ = 0, swaps_ = 0;
  InFlight in_flight_ = InFlight::kContinue;
  uint64_t flip_byte_ = UINT64_MAX;
  absl::Duration freeze_ = absl::ZeroDuration();
};

// A role that receives, behind a real server.
struct Role {
  explicit Role(const Registry& registry = SomeRegistry())
      : arenas(registry), receiver(std::make_shared<WeightReceiver>(arenas, clock)), fence(clock),
        service([this] { return receiver; }, fence, &syncs) {
    fence.Open();
    server = *rpc::Server::Create("127.0.0.1:0", &service);
  }
  Receiver Address(const std::string& name) const { return {name, server->address(), 1}; }

  sync::RealClock clock;
  HostArenas arenas;
  std::shared_ptr<WeightReceiver> receiver;
  rpc::FenceGuard fence;
  telemetry::Metrics metrics;
  SyncMetrics syncs{metrics, "rollout"};
  WeightServiceImpl service;
  std::unique_ptr<rpc::Server> server;
};

class WeightChannelTest : public testing::Test {
 protected:
  WeightChannelTest() : bytes_(PlanOf(registry_, "float32").arena_bytes) {
    std::iota(bytes_.begin(), bytes_.end(), 0);
  }

  Publication Make(uint64_t lineage, uint64_t number, absl::Duration deadline = absl::Seconds(20)) {
    Publication p;
    p.fence.set_request_id("publish-" + std::to_string(number));
    p.fence.set_controller_epoch(1);
    p.version = {lineage, number};
    p.plan = PlanOf(registry_, "float32");
    for (const auto& parameter : p.plan.parameters) {
      p.digests.push_back(Digest(bytes_.data() + parameter.offset_bytes, parameter.size_bytes));
    }
    p.arena = bytes_.data();
    p.deadline = deadline;
    return p;
  }

  Registry registry_ = SomeRegistry();
  std::vector<char> bytes_;
  std::unique_ptr<WeightChannel> channel_ = GrpcWeightChannel();
};

TEST_F(WeightChannelTest, EveryReceiverGetsTheSameBytes) {
  Role a, b;
  auto outcomes = channel_->Send(Make(1, 0), {a.Address("a"), b.Address("b")});
  for (const Outcome& outcome : outcomes) EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  for (Role* role : {&a, &b}) {
    EXPECT_EQ(role->arenas.arenas_[role->arenas.active_], bytes_);
    EXPECT_EQ(role->receiver->current(), (Version{1, 0}));
  }
  EXPECT_EQ(a.receiver->digest(), b.receiver->digest());
  bytes_[17] ^= 1;
  EXPECT_TRUE(channel_->Send(Make(1, 1), {a.Address("a")})[0].status.ok());
  EXPECT_NE(a.receiver->digest(), b.receiver->digest());
}

TEST_F(WeightChannelTest, WhatBecomesOfRunningRequestsTravelsAlong) {
  Role role;
  uint64_t number = 0;
  for (InFlight in_flight : {InFlight::kRecompute, InFlight::kContinue, InFlight::kFinish}) {
    Publication publication = Make(1, number++);
    publication.in_flight = in_flight;
    const absl::Status status = channel_->Send(publication, {role.Address("a")})[0].status;
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(role.arenas.in_flight_, in_flight);
  }
}

TEST_F(WeightChannelTest, AFlippedBitIsRefusedAndTheOldWeightsStay) {
  Role role;
  ASSERT_TRUE(channel_->Send(Make(1, 0), {role.Address("r")})[0].status.ok());
  role.arenas.flip_byte_ = 4 * (1000 * 700 + 128) + 5;
  absl::Status status = channel_->Send(Make(1, 1), {role.Address("r")})[0].status;
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 of 3 parameters have another digest (norm"));
  EXPECT_EQ(role.receiver->current(), (Version{1, 0}));
  EXPECT_EQ(role.arenas.swaps_, 1);
  role.arenas.flip_byte_ = UINT64_MAX;
  EXPECT_TRUE(channel_->Send(Make(1, 2), {role.Address("r")})[0].status.ok());
  const std::string page = role.metrics.Text();
  EXPECT_THAT(page, HasSubstr("rein_rollout_weight_sync_failures_total{transport=\"grpc\"} 1"));
  EXPECT_THAT(page, HasSubstr("rein_rollout_weight_sync_duration_seconds_count{transport=\"grpc\"} 2"));
  EXPECT_THAT(page, HasSubstr(absl::StrCat("rein_rollout_weight_sync_bytes_total{transport=\"grpc\"} ",
                                           3 * bytes_.size())));
  EXPECT_THAT(page, HasSubstr("rein_rollout_weight_sync_in_progress 0"));
}

TEST_F(WeightChannelTest, AFrozenReceiverMissesTheDeadlineTheOthersCommitAndItRejoins) {
  Role good, frozen;
  frozen.arenas.freeze_ = absl::Seconds(4);
  absl::Time start = absl::Now();
  auto outcomes = channel_->Send(Make(1, 0, absl::Seconds(3)),
                                 {good.Address("good"), frozen.Address("frozen")});
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  EXPECT_TRUE(outcomes[0].status.ok()) << outcomes[0].status;
  EXPECT_TRUE(absl::IsDeadlineExceeded(outcomes[1].status)) << outcomes[1].status;
  EXPECT_EQ(frozen.receiver->current(), std::nullopt);
  frozen.arenas.freeze_ = absl::ZeroDuration();
  outcomes = channel_->Send(Make(1, 1), {good.Address("good"), frozen.Address("frozen")});
  EXPECT_TRUE(outcomes[1].status.ok()) << outcomes[1].status;
  EXPECT_EQ(frozen.receiver->digest(), good.receiver->digest());
}

TEST_F(WeightChannelTest, AnAbsentReceiverIsNamedAndALateOneJoins) {
  Role good;
  auto outcomes = channel_->Send(Make(1, 3, absl::Seconds(2)), {good.Address("good"), {"gone", "127.0.0.1:1", 1}});
  EXPECT_TRUE(outcomes[0].status.ok());
  EXPECT_EQ(outcomes[1].name, "gone");
  EXPECT_FALSE(outcomes[1].status.ok());
  Role late;
  EXPECT_TRUE(channel_->Send(Make(1, 3), {late.Address("late")})[0].status.ok());
  EXPECT_EQ(late.receiver->digest(), good.receiver->digest());
}

TEST_F(WeightChannelTest, PlansThatDifferMoveNothing) {
  Role other(SomeRegistry(701));
  absl::Status status = channel_->Send(Make(1, 0), {other.Address("other")})[0].status;
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("norm: the sender has float32[700] at"));
  EXPECT_EQ(other.arenas.swaps_, 0);
}

TEST_F(WeightChannelTest, OlderVersionsAndOlderEpochsAreRefused) {
  Role role;
  ASSERT_TRUE(channel_->Send(Make(2, 5), {role.Address("r")})[0].status.ok());
  absl::Status stale = channel_->Send(Make(1, 9), {role.Address("r")})[0].status;
  EXPECT_TRUE(absl::IsFailedPrecondition(stale)) << stale;
  EXPECT_THAT(std::string(stale.message()), HasSubstr("version 1.9 are older than version 2.5"));
}

}  // namespace
}  // namespace rein::weights
