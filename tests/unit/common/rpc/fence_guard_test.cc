#include "common/rpc/fence_guard.h"

#include <gtest/gtest.h>

namespace rein::rpc {
namespace {

v1::Fence MakeFence(uint64_t controller_epoch, uint64_t actor_epoch, std::string id = "r1") {
  v1::Fence fence;
  fence.set_request_id(std::move(id));
  fence.set_controller_epoch(controller_epoch);
  fence.set_actor_epoch(actor_epoch);
  return fence;
}

class FenceGuardTest : public ::testing::Test {
 protected:
  void Enroll() { guard_.Enroll(5, 3, clock_.Now() + absl::Seconds(10)); }

  sync::VirtualClock clock_;
  FenceGuard guard_{clock_};
};

TEST_F(FenceGuardTest, RefusesEverythingBeforeRegistration) {
  absl::Status status = guard_.Admit(MakeFence(1, 0));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "this actor has no actor_epoch yet: it is not registered");
}

TEST_F(FenceGuardTest, AdmitsTheCurrentEpochs) {
  Enroll();
  EXPECT_TRUE(guard_.Admit(MakeFence(5, 3)).ok());
}

TEST_F(FenceGuardTest, RefusesAnOlderControllerAndNamesBothEpochs) {
  Enroll();
  absl::Status status = guard_.Admit(MakeFence(4, 3));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "fence.controller_epoch: the call is of controller epoch 4, the current one is 5");
}

TEST_F(FenceGuardTest, TakesOverANewerController) {
  Enroll();
  EXPECT_TRUE(guard_.Admit(MakeFence(6, 3)).ok());
  EXPECT_EQ(guard_.controller_epoch(), 6);
  EXPECT_FALSE(guard_.Admit(MakeFence(5, 3)).ok());
}

TEST_F(FenceGuardTest, RefusesAnotherIncarnationAndNamesBothEpochs) {
  Enroll();
  for (uint64_t epoch : {0, 2, 4}) {
    absl::Status status = guard_.Admit(MakeFence(5, epoch));
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(status.message(), "fence.actor_epoch: the call means actor epoch " +
                                    std::to_string(epoch) + ", the current one is 3");
  }
  // A refused call teaches nothing.
  EXPECT_FALSE(guard_.Admit(MakeFence(9, 2)).ok());
  EXPECT_EQ(guard_.controller_epoch(), 5);
}

TEST_F(FenceGuardTest, RefusesAfterTheLeaseAndAdmitsWhenItIsExtended) {
  Enroll();
  clock_.Advance(absl::Milliseconds(12500));
  absl::Status status = guard_.Admit(MakeFence(5, 3));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "the lease of actor epoch 3 ran out 2.5s ago");
  guard_.ExtendLease(5, clock_.Now() + absl::Seconds(10));
  EXPECT_TRUE(guard_.Admit(MakeFence(5, 3)).ok());
}

TEST_F(FenceGuardTest, ItsRefusalsAreKnownAsSuch) {
  Enroll();
  EXPECT_TRUE(IsFenceRefusal(guard_.Admit(MakeFence(4, 3))));
  EXPECT_TRUE(IsFenceRefusal(guard_.Admit(MakeFence(5, 2))));
  clock_.Advance(absl::Seconds(11));
  EXPECT_TRUE(IsFenceRefusal(guard_.Admit(MakeFence(5, 3))));
  EXPECT_FALSE(IsFenceRefusal(absl::FailedPreconditionError("vocabulary: 9 tokens, wanted 8")));
  EXPECT_FALSE(IsFenceRefusal(absl::OkStatus()));
}

TEST_F(FenceGuardTest, AnExpelledActorRefusesUntilItIsEnrolledAgain) {
  Enroll();
  guard_.Expel();
  EXPECT_EQ(guard_.Admit(MakeFence(5, 3)).code(), absl::StatusCode::kUnavailable);
  guard_.Enroll(5, 4, clock_.Now() + absl::Seconds(10));
  EXPECT_FALSE(guard_.Admit(MakeFence(5, 3)).ok());
  EXPECT_TRUE(guard_.Admit(MakeFence(5, 4)).ok());
}

TEST_F(FenceGuardTest, AnOpenGuardLooksAtRequestIdsOnly) {
  guard_.Open();
  EXPECT_TRUE(guard_.Admit(MakeFence(0, 0)).ok());
  EXPECT_EQ(guard_.Admit(MakeFence(0, 0, "")).message(),
            "fence.request_id: is 0 bytes long, wanted 1 to 128");
  EXPECT_TRUE(guard_.Admit(MakeFence(0, 0, std::string(128, 'x'))).ok());
  EXPECT_EQ(guard_.Admit(MakeFence(0, 0, std::string(129, 'x'))).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(FenceGuardTest, ARankFollowsItsCallerAndRefusesAnOlderOne) {
  guard_.Open();
  EXPECT_TRUE(guard_.Admit(MakeFence(5, 3)).ok());
  guard_.Follow(MakeFence(5, 3));
  EXPECT_TRUE(guard_.Admit(MakeFence(5, 3)).ok());
  EXPECT_TRUE(guard_.Admit(MakeFence(5, 4)).ok()) << "the first rank has registered again";
  EXPECT_TRUE(IsFenceRefusal(guard_.Admit(MakeFence(5, 3))));
  EXPECT_TRUE(IsFenceRefusal(guard_.Admit(MakeFence(4, 4))));
  EXPECT_TRUE(guard_.Admit(MakeFence(6, 4)).ok());
}

}  // namespace
}  // namespace rein::rpc
