// The weight channels between GPUs among processes that share GPU 0: the same promises as over gRPC
// (tests/conformance/weight_channel_test.cc).

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/models/arena.h"
#include "common/weights/channel/weight_channel.h"
#include "common/weights/digest.h"
#include "tests/gpu/weight_receiver_process.h"

namespace rein::gpu {
namespace {

using ::testing::HasSubstr;

class NcclChannelTest : public testing::Test {
 protected:
  NcclChannelTest() {
    setenv("NCCL_HOSTID", "sender", 1);
    setenv("NCCL_SOCKET_IFNAME", "lo", 1);
    setenv("NCCL_IB_DISABLE", "1", 1);
  }

  // Fresh random weights under a new number.
  weights::Publication Next(absl::Duration deadline = absl::Seconds(60)) {
    arena_ = at::randn({registry_.arena_elements()}, at::TensorOptions(at::kBFloat16).device(at::kCUDA));
    weights::Publication p;
    p.version = {1, number_++};
    p.fence.set_request_id(absl::StrCat("publish-", number_));
    p.fence.set_controller_epoch(1);
    p.plan = weights::PlanOf(registry_, "bfloat16");
    p.digests = *models::ArenaDigests(registry_, arena_);
    p.arena = arena_.mutable_data_ptr();
    p.deadline = deadline;
    return p;
  }
  static std::string Wanted(const weights::Publication& p) {
    return absl::StrCat(p.version.lineage, ".", p.version.number, " ", weights::CombineDigests(p.digests));
  }

  // Three rounds to two receivers, from where `place` says the bytes of a round are.
  void ExpectBothCommit(WeightReceiverProcess& a, WeightReceiverProcess& b, const std::function<void*(int)>& place) {
    for (int round = 0; round < 3; ++round) {
      weights::Publication p = Next();
      p.arena = place(round);
      const absl::Time start = absl::Now();
      auto outcomes = channel_->Send(p, {a.Address(), b.Address()});
      std::printf("%.0f MB to 2 processes on one GPU: %.4f s\n", p.plan.arena_bytes / 1e6, absl::ToDoubleSeconds(absl::Now() - start));
      for (const auto& outcome : outcomes) ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_EQ(a.InUse(), Wanted(p));
      EXPECT_EQ(b.InUse(), Wanted(p));
    }
  }
  // By ten seconds after a publication's `deadline`; thawed, it takes the next one.
  void ExpectOnlyTheFrozenIsLeftOut(WeightReceiverProcess& good, WeightReceiverProcess& frozen, absl::Duration deadline) {
    frozen.Freeze();
    weights::Publication p = Next(deadline);
    const absl::Time start = absl::Now();
    auto outcomes = channel_->Send(p, {good.Address(), frozen.Address()});
    EXPECT_LT(absl::Now() - start, deadline + absl::Seconds(10));
    EXPECT_TRUE(outcomes[0].status.ok()) << outcomes[0].status;
    EXPECT_FALSE(outcomes[1].status.ok());
    EXPECT_EQ(good.InUse(), Wanted(p));
    frozen.Thaw();
    p = Next();
    for (const auto& outcome : channel_->Send(p, {good.Address(), frozen.Address()})) EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(frozen.InUse(), Wanted(p));
  }
  // What the sender is told of a publication with a bit of the fourth parameter flipped; the one before stays in use.
  absl::Status SendChanged() {
    WeightReceiverProcess a("a");
    weights::Publication p = Next();
    EXPECT_TRUE(channel_->Send(p, {a.Address()})[0].status.ok());
    weights::Publication changed = Next();
    changed.digests[3] ^= 1;
    absl::Status status = channel_->Send(changed, {a.Address()})[0].status;
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_EQ(a.InUse(), Wanted(p));
    return status;
  }

  weights::Registry registry_ = TestRegistry();
  at::Tensor arena_;
  uint64_t number_ = 0;
  std::unique_ptr<weights::WeightChannel> channel_ = weights::NcclWeightChannel();
};

TEST_F(NcclChannelTest, EveryReceiverCommitsTheSameDigestAndALateOneJoins) {
  WeightReceiverProcess a("a"), b("b");
  ExpectBothCommit(a, b, [&](int) { return arena_.mutable_data_ptr(); });  // the second and third reuse the communicator
  WeightReceiverProcess late("late");
  weights::Publication p = Next();
  for (const auto& outcome : channel_->Send(p, {a.Address(), b.Address(), late.Address()})) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  }
  EXPECT_EQ(late.InUse(), Wanted(p));
}

TEST_F(NcclChannelTest, AFrozenReceiverIsLeftOutTheOthersCommitAndItRejoins) {
  WeightReceiverProcess good("good"), frozen("frozen");
  for (const auto& outcome : channel_->Send(Next(), {good.Address(), frozen.Address()})) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  }
  ExpectOnlyTheFrozenIsLeftOut(good, frozen, absl::Seconds(15));
}

TEST_F(NcclChannelTest, BytesThatChangedOnTheWayAreRefused) {
  EXPECT_THAT(std::string(SendChanged().message()), HasSubstr("layers.0.attention.k.weight"));
}

class IpcChannelTest : public NcclChannelTest {
 protected:
  IpcChannelTest() { channel_ = weights::IpcWeightChannel(); }
};

TEST_F(IpcChannelTest, ReceiversCopyFromTheSendersMemory) {
  WeightReceiverProcess a("a"), b("b");
  at::Tensor shifted;
  ExpectBothCommit(a, b, [&](int round) {  // each from an allocation of its own, and at an offset
    shifted = at::empty({arena_.numel() + 512}, arena_.options()).narrow(0, 512, arena_.numel());
    shifted.copy_(arena_);
    return round == 2 ? shifted.mutable_data_ptr() : arena_.mutable_data_ptr();
  });
}

TEST_F(IpcChannelTest, BytesThatChangedOnTheWayAreRefused) { SendChanged().IgnoreError(); }

TEST_F(IpcChannelTest, AFrozenReceiverDoesNotHoldTheOthersUp) {
  WeightReceiverProcess good("good"), frozen("frozen");
  ExpectOnlyTheFrozenIsLeftOut(good, frozen, absl::Seconds(5));
}

}  // namespace
}  // namespace rein::gpu
