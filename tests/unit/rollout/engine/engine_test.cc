#include "rollout/engine/engine.h"

#include <condition_variable>
#include <filesystem>
#include <future>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/fake_step_model.h"

namespace rein::rollout {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr PolicyVersion kFirst = {1, 0}, kSecond = {1, 1};

// Collects what a request gives.
class Outcome {
 public:
  RequestCallbacks Callbacks() {
    return {.on_sibling =
                [this](FinishedSibling sibling) {
                  std::lock_guard<std::mutex> lock(mutex_);
                  siblings_[sibling.sibling] = std::move(sibling);
                },
            .on_end =
                [this](absl::Status status) {
                  std::lock_guard<std::mutex> lock(mutex_);
                  end_ = status;
                  changed_.notify_all();
                }};
  }
  absl::Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(20), [&] { return end_.has_value(); })) {
      return absl::DeadlineExceededError("the request did not end");
    }
    return *end_;
  }
  bool ended() {
    std::lock_guard<std::mutex> lock(mutex_);
    return end_.has_value();
  }
  std::map<uint32_t, FinishedSibling> siblings_;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<absl::Status> end_;
};

// Whether the model begins a step before the last one is collected.
class EngineTest : public testing::TestWithParam<bool> {
 protected:
  EngineTest() {
    std::string folder = testing::TempDir() + "/no_tokenizer_engine";
    std::filesystem::create_directories(folder);
    text_ = *text::ModelText::Load(folder);
    model_.on_step = [this](const StepBatch&) {
      std::unique_lock<std::mutex> lock(mutex_);
      ++steps_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !held_; });
      if (step_takes_.count() > 0) changed_.wait_for(lock, step_takes_);
    };
    engine_ = *Engine::Create({.max_waiting = 50}, model_, *text_, clock_,
                              {.on_failure = [this](const absl::Status& status) { failed_.set_value(status); }});
  }
  ~EngineTest() override { Hold(false); }

  void UseFirst() { ASSERT_TRUE(Swap(kFirst, InFlight::kContinue).ok()); }
  absl::Status Swap(PolicyVersion version, InFlight in_flight,
                    absl::Duration patience = absl::Seconds(20)) {
    return engine_->SwapWeights(version, in_flight, patience, [this, version] {
      EXPECT_EQ(model_.under_way(), 0u);
      model_.weights = version.number;
      return absl::OkStatus();
    });
  }
  static GenerateSpec Spec(uint64_t prompt, uint32_t siblings, uint32_t tokens) {
    GenerateSpec spec = {.group = {0, prompt, 0}, .prompt = {1, 2, 3}};
    for (uint32_t s = 0; s < siblings; ++s) spec.siblings.push_back(s);
    spec.sampling.max_tokens = tokens;
    return spec;
  }
  // Keeps the model inside its step.
  void Hold(bool hold) {
    std::lock_guard<std::mutex> lock(mutex_);
    held_ = hold;
    changed_.notify_all();
  }
  // Until so many steps have begun in all.
  void WaitForSteps(int wanted) {
    std::unique_lock<std::mutex> lock(mutex_);
    ASSERT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(20), [&] { return steps_ >= wanted; }));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int steps_ = 0;
  bool held_ = false;
  std::chrono::milliseconds step_takes_{0};
  sync::RealClock clock_;
  std::unique_ptr<text::ModelText> text_;
  std::promise<absl::Status> failed_;  // of the first step that failed
  FakeStepModel model_{
      {.pages = 600, .page_tokens = 4, .vocabulary_size = 1000, .max_length = 2000, .ahead = GetParam()}};
  std::unique_ptr<Engine> engine_;
};

TEST_P(EngineTest, WantsWeightsFirst) {
  absl::Status status = engine_->Submit(Spec(1, 1, 3), {}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no weights have come yet"));
  EXPECT_EQ(engine_->version(), std::nullopt);
}

TEST_P(EngineTest, ServesRequestsFromManyThreads) {
  UseFirst();
  std::vector<Outcome> outcomes(20);
  std::vector<std::thread> threads;
  for (uint64_t p = 0; p < 20; ++p) {
    threads.emplace_back([&, p] {
      while (!engine_->Submit(Spec(p, 2, 10), outcomes[p].Callbacks()).ok()) {
        std::this_thread::yield();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (auto& outcome : outcomes) {
    EXPECT_TRUE(outcome.Wait().ok());
    EXPECT_THAT(outcome.siblings_, SizeIs(2));
    EXPECT_THAT(outcome.siblings_[1].tokens, SizeIs(10));
  }
  for (int i = 0; i < 2000 && engine_->stats().generated_tokens < 400; ++i) {  // noted after the step
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(engine_->stats().generated_tokens, 400u);
}

TEST_P(EngineTest, RefusesAnotherVersionAndAFullQueue) {
  UseFirst();
  GenerateSpec spec = Spec(1, 1, 3);
  spec.version = kSecond;
  EXPECT_THAT(std::string(engine_->Submit(spec, {}).status().message()),
              HasSubstr("policy version 1.0 is in use, want 1.1"));
  absl::Status full = engine_->Submit(Spec(1, 51, 3), {}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(full));
  EXPECT_THAT(std::string(full.message()), HasSubstr("0 siblings wait, at most 50 may"));
}

TEST_P(EngineTest, PausesAndResumes) {
  UseFirst();
  engine_->Pause();
  Outcome outcome;
  ASSERT_TRUE(engine_->Submit(Spec(1, 1, 3), outcome.Callbacks()).ok());
  EXPECT_EQ(engine_->Abort({{9, 9, 9}}), 0u) << "commands are served, steps are not made";
  EXPECT_EQ(engine_->stats().steps, 0u);
  EXPECT_TRUE(Swap(kSecond, InFlight::kContinue).ok());
  engine_->Resume();
  EXPECT_TRUE(outcome.Wait().ok());
  EXPECT_THAT(outcome.siblings_[0].versions, ElementsAre(VersionSpan{kSecond, 3}));
}

TEST_P(EngineTest, PausingWaitsForTheStepUnderWay) {
  UseFirst();
  Outcome outcome;
  ASSERT_TRUE(engine_->Submit(Spec(1, 1, 1000), outcome.Callbacks()).ok());
  WaitForSteps(3);
  engine_->Pause();
  EXPECT_EQ(model_.under_way(), 0u);
  engine_->Resume();
  EXPECT_TRUE(outcome.Wait().ok());
  EXPECT_THAT(outcome.siblings_[0].tokens, SizeIs(1000));
}

TEST_P(EngineTest, NewWeightsBetweenTwoTokens) {
  UseFirst();
  Outcome outcome;
  Hold(true);
  ASSERT_TRUE(engine_->Submit(Spec(1, 1, 1000), outcome.Callbacks()).ok());
  WaitForSteps(1);
  std::thread swap([&] { EXPECT_TRUE(Swap(kSecond, InFlight::kContinue).ok()); });
  while (!engine_->swap_pending()) std::this_thread::yield();
  Hold(false);
  swap.join();
  EXPECT_EQ(engine_->version(), kSecond);
  EXPECT_TRUE(outcome.Wait().ok());
  ASSERT_THAT(outcome.siblings_[0].versions, SizeIs(2));
  EXPECT_EQ(outcome.siblings_[0].versions[0].tokens + outcome.siblings_[0].versions[1].tokens,
            1000u);
}

TEST_P(EngineTest, NewWeightsMayComputeAnewWhatIsUnderWay) {
  UseFirst();
  Outcome outcome;
  Hold(true);
  ASSERT_TRUE(engine_->Submit(Spec(1, 1, 300), outcome.Callbacks()).ok());
  WaitForSteps(1);
  std::thread swap([&] { EXPECT_TRUE(Swap(kSecond, InFlight::kRecompute).ok()); });
  while (!engine_->swap_pending()) std::this_thread::yield();
  Hold(false);
  swap.join();
  EXPECT_TRUE(outcome.Wait().ok());
  ASSERT_THAT(outcome.siblings_[0].versions, SizeIs(2));
  const uint32_t first = outcome.siblings_[0].versions[0].tokens;
  EXPECT_EQ(first + outcome.siblings_[0].versions[1].tokens, 300u);
  EXPECT_EQ(model_.tokens_computed, (3 + first - 1) + (3 + first) + (300 - first - 1));
}

TEST_P(EngineTest, NewWeightsAfterWhatIsUnderWay) {
  UseFirst();
  Outcome before, after;
  Hold(true);
  ASSERT_TRUE(engine_->Submit(Spec(1, 1, 200), before.Callbacks()).ok());
  WaitForSteps(1);
  std::thread swap([&] { EXPECT_TRUE(Swap(kSecond, InFlight::kFinish).ok()); });
  while (!engine_->swap_pending()) std::this_thread::yield();
  ASSERT_TRUE(engine_->Submit(Spec(2, 1, 5), after.Callbacks()).ok());
  Hold(false);
  swap.join();
  EXPECT_TRUE(before.ended());
  EXPECT_TRUE(after.Wait().ok());
  EXPECT_THAT(before.siblings_[0].versions, ElementsAre(VersionSpan{kFirst, 200}));
  EXPECT_THAT(after.siblings_[0].versions, ElementsAre(VersionSpan{kSecond, 5}));
}

TEST_P(EngineTest, ASwapHasADeadline) {
  UseFirst();
  Outcome outcome;
  Hold(true);
  ASSERT_TRUE(engine_->Submit(Spec(1, 1, 5), outcome.Callbacks()).ok());
  WaitForSteps(1);
  absl::Status status = Swap(kSecond, InFlight::kFinish, absl::Milliseconds(20));
  Hold(false);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_TRUE(outcome.Wait().ok());
  EXPECT_EQ(engine_->version(), kFirst);
  Outcome next;
  ASSERT_TRUE(engine_->Submit(Spec(2, 1, 5), next.Callbacks()).ok());
  EXPECT_TRUE(next.Wait().ok()) << "new requests are admitted again";
}

TEST_P(EngineTest, ASwapThatFailsChangesNothing) {
  UseFirst();
  absl::Status status = engine_->SwapWeights(kSecond, InFlight::kContinue, absl::Seconds(20),
                                             [] { return absl::DataLossError("bad bytes"); });
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_EQ(engine_->version(), kFirst);
}

TEST_P(EngineTest, AbortsByGroupAndById) {
  UseFirst();
  Outcome a, b;
  step_takes_ = std::chrono::milliseconds(5);  // they do not end by themselves before they are aborted
  Hold(true);
  auto id = engine_->Submit(Spec(1, 2, 1000), a.Callbacks());
  ASSERT_TRUE(engine_->Submit(Spec(2, 2, 1000), b.Callbacks()).ok());
  Hold(false);
  EXPECT_EQ(engine_->Abort({{0, 2, 0}}), 2u);
  EXPECT_TRUE(b.Wait().ok());
  engine_->AbortRequest(*id);
  EXPECT_TRUE(a.Wait().ok());
  EXPECT_EQ(a.siblings_[0].reason, FinishReason::kAbort);
  EXPECT_EQ(engine_->Abort({}), 0u);
}

TEST_P(EngineTest, DestructionEndsRequests) {
  UseFirst();
  Outcome outcome;
  ASSERT_TRUE(engine_->Submit(Spec(1, 1, 1900), outcome.Callbacks()).ok());
  engine_.reset();
  absl::Status status = outcome.Wait();
  EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
}

TEST_P(EngineTest, AModelErrorEndsRequests) {
  UseFirst();
  Outcome outcome;
  model_.fails = absl::ResourceExhaustedError("no memory");
  ASSERT_TRUE(engine_->Submit(Spec(1, 1, 5), outcome.Callbacks()).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(outcome.Wait()));
  EXPECT_EQ(failed_.get_future().get().message(), "no memory") << "whoever owns the engine is told";
}

TEST_P(EngineTest, WantsSensibleOptions) {
  EXPECT_THAT(
      std::string(
          Engine::Create({.max_running = 0}, model_, *text_, clock_, {}).status().message()),
      HasSubstr("1 running sequence"));
}

INSTANTIATE_TEST_SUITE_P(Ahead, EngineTest, testing::Bool());

}  // namespace
}  // namespace rein::rollout
