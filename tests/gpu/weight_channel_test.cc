// The weight channels between GPUs among processes that share GPU 0: the same promises as over gRPC
// (tests/conformance/weight_channel_test.cc).

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
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

  weights::Registry registry_ = TestRegistry();
  at::Tensor arena_;
  uint64_t number_ = 0;
  std::unique_ptr<weights::WeightChannel> channel_ = weights::NcclWeightChannel();
};

TEST_F(NcclChannelTest, EveryReceiverCommitsTheSameDigestAndALateOneJoins) {
  WeightReceiverProcess a("a"), b("b");
  for (int round = 0; round < 3; ++round) {  // the second and third reuse the communicator
    weights::Publication p = Next();
    absl::Time start = absl::Now();
    auto outcomes = channel_->Send(p, {a.Address(), b.Address()});
    std::printf("broadcast of %.0f MB to 2 ranks on one GPU: %.3f s\n", p.plan.arena_bytes / 1e6,
                absl::ToDoubleSeconds(absl::Now() - start));
    for (const auto& outcome : outcomes) ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(a.InUse(), Wanted(p));
    EXPECT_EQ(b.InUse(), Wanted(p));
  }
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
  frozen.Freeze();
  weights::Publication p = Next(absl::Seconds(15));
  absl::Time start = absl::Now();
  auto outcomes = channel_->Send(p, {good.Address(), frozen.Address()});
  EXPECT_LT(absl::Now() - start, absl::Seconds(25));
  EXPECT_TRUE(outcomes[0].status.ok()) << outcomes[0].status;
  EXPECT_FALSE(outcomes[1].status.ok());
  EXPECT_EQ(good.InUse(), Wanted(p));
  frozen.Thaw();
  p = Next();
  for (const auto& outcome : channel_->Send(p, {good.Address(), frozen.Address()})) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  }
  EXPECT_EQ(frozen.InUse(), Wanted(p));
}

TEST_F(NcclChannelTest, BytesThatChangedOnTheWayAreRefused) {
  WeightReceiverProcess a("a");
  weights::Publication p = Next();
  ASSERT_TRUE(channel_->Send(p, {a.Address()})[0].status.ok());
  weights::Publication changed = Next();
  changed.digests[3] ^= 1;  // as if a bit of the fourth parameter had flipped
  absl::Status status = channel_->Send(changed, {a.Address()})[0].status;
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("layers.0.attention.k.weight"));
  EXPECT_EQ(a.InUse(), Wanted(p));
}

class IpcChannelTest : public NcclChannelTest {
 protected:
  IpcChannelTest() { channel_ = weights::IpcWeightChannel(); }
};

TEST_F(IpcChannelTest, ReceiversCopyFromTheSendersMemory) {
  WeightReceiverProcess a("a"), b("b");
  for (int round = 0; round < 3; ++round) {  // each from an allocation of its own, and at an offset
    weights::Publication p = Next();
    at::Tensor shifted = at::empty({arena_.numel() + 512}, arena_.options()).narrow(0, 512, arena_.numel());
    shifted.copy_(arena_);
    if (round == 2) p.arena = shifted.mutable_data_ptr();
    absl::Time start = absl::Now();
    auto outcomes = channel_->Send(p, {a.Address(), b.Address()});
    std::printf("copies of %.0f MB by IPC to 2 processes: %.4f s\n", p.plan.arena_bytes / 1e6,
                absl::ToDoubleSeconds(absl::Now() - start));
    for (const auto& outcome : outcomes) ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(a.InUse(), Wanted(p));
    EXPECT_EQ(b.InUse(), Wanted(p));
  }
}

TEST_F(IpcChannelTest, BytesThatChangedOnTheWayAreRefused) {
  WeightReceiverProcess a("a");
  weights::Publication p = Next();
  ASSERT_TRUE(channel_->Send(p, {a.Address()})[0].status.ok());
  weights::Publication changed = Next();
  changed.digests[3] ^= 1;
  absl::Status status = channel_->Send(changed, {a.Address()})[0].status;
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(a.InUse(), Wanted(p));
}

TEST_F(IpcChannelTest, AFrozenReceiverDoesNotHoldTheOthersUp) {
  WeightReceiverProcess good("good"), frozen("frozen");
  frozen.Freeze();
  weights::Publication p = Next(absl::Seconds(5));
  absl::Time start = absl::Now();
  auto outcomes = channel_->Send(p, {good.Address(), frozen.Address()});
  EXPECT_LT(absl::Now() - start, absl::Seconds(15));
  EXPECT_TRUE(outcomes[0].status.ok()) << outcomes[0].status;
  EXPECT_FALSE(outcomes[1].status.ok());
  EXPECT_EQ(good.InUse(), Wanted(p));
  frozen.Thaw();
  p = Next();
  for (const auto& outcome : channel_->Send(p, {good.Address(), frozen.Address()})) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  }
  EXPECT_EQ(frozen.InUse(), Wanted(p));
}

}  // namespace
}  // namespace rein::gpu
