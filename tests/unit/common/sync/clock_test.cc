#include "common/sync/clock.h"

#include "absl/time/clock.h"
#include <gtest/gtest.h>

namespace rein::sync {
namespace {

TEST(ClockTest, TheRealClockIsNearTheWallClockAndNeverGoesBack) {
  RealClock clock;
  absl::Time first = clock.Now();
  EXPECT_LT(absl::AbsDuration(first - absl::Now()), absl::Seconds(1));
  for (int i = 0; i < 1000; ++i) EXPECT_GE(clock.Now(), first);
}

TEST(ClockTest, TheVirtualClockStandsStillUntilMoved) {
  VirtualClock clock(absl::FromUnixSeconds(100));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(100));
  clock.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(clock.Now(), absl::FromUnixMillis(101500));
  clock.AdvanceTo(absl::FromUnixSeconds(90));
  EXPECT_EQ(clock.Now(), absl::FromUnixMillis(101500));
  clock.AdvanceTo(absl::FromUnixSeconds(110));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(110));
}

}  // namespace
}  // namespace rein::sync
