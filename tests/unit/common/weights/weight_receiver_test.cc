#include "common/weights/weight_receiver.h"

#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::weights {
namespace {

// One parameter of one byte; taking it into use waits until it is allowed.
class SlowArenas final : public ReceivingArenas {
 public:
  const WeightPlan& plan() const override { return plan_; }
  absl::Status Write(uint64_t, const char*, size_t) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<uint64_t>> IdleDigests() override {
    return std::vector<uint64_t>{7};
  }
  absl::Status TakeIntoUse(const Version&, InFlight) override {
    taking.set_value();
    return allowed.get_future().get();
  }

  std::promise<void> taking;
  std::promise<absl::Status> allowed;

 private:
  const WeightPlan plan_ = {.parameters = {{"norm", {1}, "float32", 0, 1}}, .arena_bytes = 1};
};

class WeightReceiverTest : public testing::Test {
 protected:
  // Begins and commits `version` on a thread; returns when the arenas wait.
  std::thread CommitAndWait(const Version& version) {
    EXPECT_TRUE(receiver_.Begin(version, arenas_.plan(), absl::Minutes(1)).ok());
    std::thread commit([this, version] {
      committed_ = receiver_.Commit(version, {7}, InFlight::kFinish);
    });
    arenas_.taking.get_future().wait();
    return commit;
  }

  sync::VirtualClock clock_;
  SlowArenas arenas_;
  WeightReceiver receiver_{arenas_, clock_};
  absl::Status committed_ = absl::UnknownError("not called");
};

TEST_F(WeightReceiverTest, NothingElseWaitsWhileSequencesFinishUnderTheOldWeights) {
  std::thread commit = CommitAndWait({1, 1});
  EXPECT_EQ(receiver_.current(), std::nullopt);
  receiver_.Abort({1, 1});
  absl::Status next = receiver_.Begin({1, 2}, arenas_.plan(), absl::Minutes(1)).status();
  EXPECT_TRUE(absl::IsUnavailable(next)) << next;
  EXPECT_EQ(next.message(), "version 1.1 is just being taken into use: try again later");
  EXPECT_TRUE(absl::IsUnavailable(receiver_.Commit({1, 1}, {7}, InFlight::kFinish)));
  arenas_.allowed.set_value(absl::OkStatus());
  commit.join();
  EXPECT_TRUE(committed_.ok()) << committed_;
  EXPECT_EQ(receiver_.current(), (Version{1, 1}));
  EXPECT_TRUE(receiver_.Commit({1, 1}, {7}, InFlight::kFinish).ok()) << "a repeat";
  EXPECT_TRUE(receiver_.Begin({1, 2}, arenas_.plan(), absl::Minutes(1)).ok());
}

TEST_F(WeightReceiverTest, AVersionThatWasNotTakenLeavesTheDoorOpen) {
  std::thread commit = CommitAndWait({1, 1});
  arenas_.allowed.set_value(absl::DeadlineExceededError("sequences did not end"));
  commit.join();
  EXPECT_EQ(committed_.message(), "sequences did not end");
  EXPECT_EQ(receiver_.current(), std::nullopt);
  EXPECT_TRUE(receiver_.Begin({1, 1}, arenas_.plan(), absl::Minutes(1)).ok());
}

}  // namespace
}  // namespace rein::weights
