#include "rollout/engine/engine_core.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rollout/sampling/draw_key.h"
#include "tests/fakes/fake_step_model.h"

namespace rein::rollout {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr PolicyVersion kFirst = {1, 0}, kSecond = {1, 1};

class EngineCoreTest : public testing::Test {
 protected:
  EngineCoreTest() {
    std::string folder = testing::TempDir() + "/no_tokenizer";
    std::filesystem::create_directories(folder);
    text_ = *text::ModelText::Load(folder);
  }

  void Start(EngineOptions options, int32_t pages = 64, int32_t page_tokens = 4) {
    model_ = std::make_unique<FakeStepModel>(StepModelLimits{pages, page_tokens, 1000, 200, ahead_});
    core_ = std::make_unique<EngineCore>(options, *model_, *text_, clock_,
                                         [this](const auto& f) { figures_.push_back(f); });
    core_->UseVersion(kFirst);
  }

  // Queues a request for `siblings` completions of exactly `tokens` tokens, or until one of `stops`.
  void Add(uint64_t prompt_id, std::vector<uint32_t> prompt, uint32_t siblings, uint32_t tokens,
           std::vector<uint32_t> stops = {}) {
    GenerateSpec spec = {.group = {0, prompt_id, 0}, .prompt = std::move(prompt)};
    for (uint32_t s = 0; s < siblings; ++s) spec.siblings.push_back(s);
    spec.sampling.max_tokens = tokens;
    spec.sampling.seed = 7;
    spec.sampling.stop_token_ids = std::move(stops);
    RequestCallbacks callbacks = {
        .on_sibling = [this, prompt_id](FinishedSibling s) { done_[{prompt_id, s.sibling}] = s; },
        .on_end = [this, prompt_id](absl::Status status) { ended_[prompt_id] = status; }};
    auto request = MakeRequest(spec, callbacks, model_->limits(), *text_);
    ASSERT_TRUE(request.ok()) << request.status();
    (*request)->submitted = clock_.Now();
    core_->Add(*request);
    specs_[prompt_id] = spec;
  }

  void Run(int max_steps = 10'000) {
    for (int i = 0; core_->has_work(); ++i) {
      ASSERT_LT(i, max_steps);
      auto progress = core_->Step();
      ASSERT_TRUE(progress.ok()) << progress.status();
      ASSERT_TRUE(*progress);
      EXPECT_LE(core_->stats().running, static_cast<uint32_t>(core_->options().max_running));
    }
    EXPECT_EQ(core_->stats().kv_usage, 0) << "a page is lost";
  }

  // What a sibling must have got, whatever happened beside it.
  std::vector<uint32_t> Expected(uint64_t prompt_id, uint32_t sibling) {
    const GenerateSpec& spec = specs_[prompt_id];
    uint64_t key = PhiloxKey({.seed = 7, .prompt = prompt_id, .sibling = sibling});
    std::vector<uint32_t> tokens = model_->Complete(spec.prompt, key, spec.sampling.max_tokens);
    const std::vector<uint32_t>& stops = spec.sampling.stop_token_ids;
    auto end = std::find_first_of(tokens.begin(), tokens.end(), stops.begin(), stops.end());
    if (end != tokens.end()) tokens.erase(end + 1, tokens.end());
    return tokens;
  }

  void ExpectAllRight() {
    size_t siblings = 0;
    for (const auto& [prompt_id, spec] : specs_) {
      EXPECT_TRUE(ended_.count(prompt_id) == 1 && ended_[prompt_id].ok()) << prompt_id;
      for (uint32_t sibling : spec.siblings) {
        EXPECT_EQ((done_[{prompt_id, sibling}].tokens), Expected(prompt_id, sibling))
            << prompt_id << "/" << sibling;
        ++siblings;
      }
    }
    EXPECT_THAT(done_, SizeIs(siblings));
  }

  bool ahead_ = false;  // whether the model takes a step before the last one is collected
  sync::VirtualClock clock_;
  std::unique_ptr<text::ModelText> text_;
  std::unique_ptr<FakeStepModel> model_;
  std::unique_ptr<EngineCore> core_;
  std::map<std::pair<uint64_t, uint32_t>, FinishedSibling> done_;
  std::map<uint64_t, absl::Status> ended_;
  std::map<uint64_t, GenerateSpec> specs_;
  std::vector<SiblingFigures> figures_;
};

TEST_F(EngineCoreTest, CompletesOnePrompt) {
  Start({});
  Add(1, {5, 6, 7}, 1, 4);
  Run();
  ExpectAllRight();
  const FinishedSibling& done = done_.begin()->second;
  EXPECT_EQ(done.reason, FinishReason::kLength);
  EXPECT_THAT(done.logprobs, ElementsAre(-0.5f, -0.5f, -0.5f, -0.5f));
  EXPECT_THAT(done.versions, ElementsAre(VersionSpan{kFirst, 4}));
  EXPECT_EQ(core_->stats().steps, 4u);
}

TEST_F(EngineCoreTest, APromptIsComputedOnceForItsSiblings) {
  Start({});
  std::vector<uint32_t> prompt(10, 3);
  Add(1, prompt, 8, 5);
  Run();
  ExpectAllRight();
  EXPECT_EQ(model_->tokens_computed, 10u + 8 * 4) << "the last token of each is never fed";
  EXPECT_EQ(core_->stats().prompt_tokens, 10u);
}

TEST_F(EngineCoreTest, SiblingsWithoutRoomComeLater) {
  Start({.max_running = 3});
  Add(1, std::vector<uint32_t>(9, 3), 8, 5);
  Run();
  ExpectAllRight();
}

TEST_F(EngineCoreTest, EqualBeginningsAreReused) {
  Start({});
  std::vector<uint32_t> prompt(12, 3);
  Add(1, prompt, 1, 2);
  Run();
  size_t before = model_->tokens_computed;
  prompt.push_back(4);
  Add(2, prompt, 1, 2);
  Run();
  ExpectAllRight();
  EXPECT_EQ(model_->tokens_computed - before, 1u + 1) << "12 tokens stood in remembered pages";
  EXPECT_EQ(core_->stats().prefix_hits_tokens, 12u);
}

TEST_F(EngineCoreTest, NothingIsReusedAcrossVersions) {
  Start({});
  Add(1, std::vector<uint32_t>(12, 3), 1, 2);
  Run();
  size_t before = model_->tokens_computed;
  core_->UseVersion(kSecond);
  Add(2, std::vector<uint32_t>(12, 3), 1, 2);
  Run();
  EXPECT_EQ(model_->tokens_computed - before, 12u + 1);
}

TEST_F(EngineCoreTest, LongPromptsComeInChunks) {
  Start({.step_tokens = 16});
  size_t most = 0;
  model_->on_step = [&](const StepBatch& batch) { most = std::max(most, batch.tokens.size()); };
  Add(1, std::vector<uint32_t>(100, 3), 3, 5);
  Add(2, {4}, 1, 20);
  Run();
  ExpectAllRight();
  EXPECT_EQ(most, 16u);
}

TEST_F(EngineCoreTest, FewPagesMeanPreemptionNotOtherTokens) {
  Start({}, /*pages=*/14);
  for (uint64_t p = 0; p < 6; ++p) Add(p, std::vector<uint32_t>(5 + p, 3 + p), 3, 20);
  Run();
  ExpectAllRight();
  EXPECT_GT(core_->stats().preemptions, 0u);
}

TEST_F(EngineCoreTest, WithoutPrefixCache) {
  Start({.max_running = 2, .prefix_cache = false}, /*pages=*/20);
  for (uint64_t p = 0; p < 4; ++p) Add(p, std::vector<uint32_t>(9, 3), 3, 12);
  Run();
  ExpectAllRight();
}

// Requests of all shapes, arriving at random times, with aborts, in little memory.
TEST_F(EngineCoreTest, TokensNeverDependOnTheBatch) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    ahead_ = seed % 2 == 1;
    std::vector<uint32_t> stops(seed % 3 == 0 ? 100 : 0);
    std::iota(stops.begin(), stops.end(), 0);
    auto draw = [&](uint32_t from, uint32_t to) { return from + random() % (to - from + 1); };
    specs_.clear();
    done_.clear();
    ended_.clear();
    Start({.max_running = static_cast<int32_t>(draw(1, 12)),
           .step_tokens = static_cast<int32_t>(draw(4, 40)),
           .prefix_cache = draw(0, 3) > 0},
          /*pages=*/static_cast<int32_t>(draw(16, 40)));
    std::vector<uint64_t> aborted;
    for (uint64_t p = 0; p < 20; ++p) {
      std::vector<uint32_t> prompt(draw(1, 30), draw(1, 2));
      Add(p, prompt, draw(1, 6), draw(1, 25), stops);
      for (uint32_t steps = draw(0, 6); steps > 0; --steps) ASSERT_TRUE(core_->Step().ok());
      if (draw(0, 5) == 0) {
        uint64_t victim = draw(0, static_cast<uint32_t>(p));
        if (ended_.count(victim) == 0) aborted.push_back(victim);
        core_->Abort([&](const Request& request) { return request.spec.group.prompt == victim; });
      }
    }
    Run();
    for (const auto& [key, sibling] : done_) {
      std::vector<uint32_t> expected = Expected(key.first, key.second);
      if (sibling.reason == FinishReason::kAbort) expected.resize(sibling.tokens.size());
      ASSERT_EQ(sibling.tokens, expected) << seed << ": " << key.first << "/" << key.second;
    }
    EXPECT_THAT(ended_, SizeIs(20));
  }
}

TEST_F(EngineCoreTest, AStepBeginsBeforeTheTokensOfTheLastAreHere) {
  ahead_ = true;
  Start({});
  size_t most = 0;
  model_->on_step = [&](const StepBatch&) { most = std::max(most, model_->under_way()); };
  Add(1, std::vector<uint32_t>(10, 3), 8, 5);
  Run();
  ExpectAllRight();
  EXPECT_EQ(most, 1u);
  EXPECT_EQ(model_->under_way(), 0u);
  EXPECT_EQ(model_->tokens_computed, 10u + 8 * 4) << "an end by length is foreseen";
}

TEST_F(EngineCoreTest, WhatIsComputedBehindAStopTokenIsThrownAway) {
  Start({});
  const std::vector<uint32_t> whole = model_->Complete({1, 2, 3}, PhiloxKey({.seed = 7, .prompt = 1}), 9);
  ahead_ = true;
  Start({});
  Add(1, {1, 2, 3}, 1, 9, {whole[4]});
  Run();
  ExpectAllRight();
  const FinishedSibling& done = done_.begin()->second;
  EXPECT_EQ(done.reason, FinishReason::kStop);
  EXPECT_THAT(done.logprobs, SizeIs(5));
  EXPECT_EQ(model_->tokens_computed, 3u + 5) << "the stop token was fed, in vain";
  EXPECT_EQ(core_->stats().generated_tokens, 5u);
}

TEST_F(EngineCoreTest, TokensOfAStepUnderWayBelongToTheWeightsThatItBeganUnder) {
  ahead_ = true;
  Start({});
  Add(1, {1, 2, 3}, 2, 6);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(core_->Step().ok());
  ASSERT_TRUE(core_->Settle().ok());
  core_->UseVersion(kSecond);
  Run();
  EXPECT_THAT((done_[{1, 1}].versions), ElementsAre(VersionSpan{kFirst, 3}, VersionSpan{kSecond, 3}));
  ExpectAllRight();
}

TEST_F(EngineCoreTest, AStepThatFailsLateLeavesNothingUnderWay) {
  ahead_ = true;
  Start({});
  Add(1, {1}, 2, 9);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(core_->Step().ok());
  model_->collect_fails = absl::InternalError("the kernel failed");
  absl::Status status = core_->Step().status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("the kernel failed"));
  core_->FailAll(status);
  EXPECT_EQ(ended_[1], status);
  EXPECT_EQ(model_->under_way(), 0u);
  EXPECT_FALSE(core_->has_work());
  model_->collect_fails = absl::OkStatus();
  specs_.clear();
  ended_.clear();
  Add(2, {1}, 2, 3);
  Run();
  ExpectAllRight();
}

TEST_F(EngineCoreTest, AbortFreesEverything) {
  Start({.max_running = 2});
  Add(1, {1, 2, 3}, 4, 50);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(core_->Step().ok());
  EXPECT_EQ(core_->Abort([](const Request&) { return true; }), 4u);
  EXPECT_FALSE(core_->has_work());
  EXPECT_EQ(core_->stats().kv_usage, 0);
  EXPECT_TRUE(ended_[1].ok());
  EXPECT_EQ((done_[{1, 0}].reason), FinishReason::kAbort);
  EXPECT_THAT((done_[{1, 0}].tokens), SizeIs(5));
  EXPECT_THAT((done_[{1, 3}].tokens), SizeIs(0));
}

TEST_F(EngineCoreTest, EachTokenKeepsItsVersion) {
  Start({});
  Add(1, {1, 2, 3}, 2, 6);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(core_->Step().ok());
  core_->UseVersion(kSecond);
  Run();
  EXPECT_THAT((done_[{1, 1}].versions),
              ElementsAre(VersionSpan{kFirst, 2}, VersionSpan{kSecond, 4}));
  ExpectAllRight();
}

// Six tokens of prompt make a full page of four: one sibling computes it, and the others share it again.
TEST_F(EngineCoreTest, KeysAndValuesMayBeComputedAnewUnderNewWeights) {
  for (bool cache : {true, false}) {
    done_.clear();
    Start({.prefix_cache = cache});
    Add(1, {1, 2, 3, 4, 5, 6}, 3, 6);
    Add(2, {9}, 1, 6);
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(core_->Step().ok());
    const uint64_t before = model_->tokens_computed;
    core_->UseVersion(kSecond, /*recompute=*/true);
    EXPECT_EQ(core_->stats().kv_usage, 0);
    EXPECT_TRUE(core_->in_flight());
    Run();
    for (uint32_t sibling : {0, 1, 2}) {
      EXPECT_THAT((done_[{1, sibling}].versions), ElementsAre(VersionSpan{kFirst, 2}, VersionSpan{kSecond, 4}));
    }
    ExpectAllRight();
    // 6 + 2 tokens of each of three, 1 + 2 of the other one, less a page for each of two; then 3 draws more of each.
    EXPECT_EQ(model_->tokens_computed - before, 3u * 8 + 3 - (cache ? 2 * 4 : 0) + 4 * 3);
  }
}

TEST_F(EngineCoreTest, WhatIsComputedAnewKeepsItsOrder) {
  Start({.max_running = 2});
  for (uint64_t prompt : {1, 2, 3}) Add(prompt, {7, static_cast<uint32_t>(prompt)}, 1, 4);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(core_->Step().ok());
  core_->UseVersion(kSecond, /*recompute=*/true);
  Run();
  ExpectAllRight();
  EXPECT_THAT((done_[{1, 0}].versions), ElementsAre(VersionSpan{kFirst, 2}, VersionSpan{kSecond, 2}));
  EXPECT_THAT((done_[{2, 0}].versions), ElementsAre(VersionSpan{kFirst, 2}, VersionSpan{kSecond, 2}));
  EXPECT_THAT((done_[{3, 0}].versions), ElementsAre(VersionSpan{kSecond, 4})) << "it still waits behind the others";
}

TEST_F(EngineCoreTest, APromptHalfComputedBeginsAnewUnderNewWeights) {
  Start({.step_tokens = 8});
  Add(1, std::vector<uint32_t>(20, 3), 2, 2);
  ASSERT_TRUE(core_->Step().ok());
  core_->UseVersion(kSecond);
  EXPECT_EQ(core_->stats().kv_usage, 0);
  Run();
  ExpectAllRight();
  EXPECT_EQ(core_->stats().prompt_tokens, 28u);
  EXPECT_THAT((done_[{1, 0}].versions), ElementsAre(VersionSpan{kSecond, 2}));
}

TEST_F(EngineCoreTest, NewOnesWaitWhileNotAdmitted) {
  Start({});
  Add(1, {1}, 1, 3);
  ASSERT_TRUE(core_->Step().ok());
  core_->AdmitNew(false);
  Add(2, {2}, 1, 3);
  while (core_->in_flight()) ASSERT_TRUE(*core_->Step());
  EXPECT_EQ(ended_.count(1), 1u);
  EXPECT_EQ(core_->stats().waiting, 1u);
  EXPECT_FALSE(*core_->Step());
  core_->AdmitNew(true);
  Run();
  ExpectAllRight();
}

TEST_F(EngineCoreTest, TimesAreMeasured) {
  Start({.max_running = 1});
  model_->on_step = [this](const StepBatch&) { clock_.Advance(absl::Seconds(1)); };
  Add(1, {1}, 1, 3);
  Add(2, {1}, 1, 3);
  Run();
  ASSERT_THAT(figures_, SizeIs(2));
  EXPECT_EQ(figures_[1].queued, absl::Seconds(3));
  EXPECT_EQ(figures_[1].first_token, absl::Seconds(4));
  EXPECT_EQ(figures_[1].total, absl::Seconds(6));
  EXPECT_EQ(figures_[1].between_tokens, absl::Seconds(1));
  EXPECT_EQ(figures_[1].completion_tokens, 3u);
}

TEST_F(EngineCoreTest, AModelThatFailsFailsItsRequests) {
  Start({});
  Add(1, {1}, 2, 3);
  model_->fails = absl::ResourceExhaustedError("no memory");
  absl::Status status = core_->Step().status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  core_->FailAll(status);
  EXPECT_EQ(ended_[1], status);
  EXPECT_EQ(core_->stats().kv_usage, 0);
  model_->fails = absl::OkStatus();
  specs_.clear();
  ended_.clear();
  Add(2, {1}, 2, 3);
  Run();
  ExpectAllRight();
}

TEST_F(EngineCoreTest, BadRequestsAreRefused) {
  Start({});
  auto error = [&](GenerateSpec spec) {
    absl::Status status = MakeRequest(spec, {}, model_->limits(), *text_).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(error({.prompt = {1}}), HasSubstr("siblings is empty"));
  EXPECT_THAT(error({.prompt = {1}, .siblings = {2, 2}}), HasSubstr("the same number twice"));
  EXPECT_THAT(error({.siblings = {0}}), HasSubstr("the prompt has no token"));
  EXPECT_THAT(error({.prompt = {1, 1000}, .siblings = {0}}),
              HasSubstr("prompt token 1 is 1000, want an id below the vocabulary size 1000"));
  EXPECT_THAT(error({.prompt = std::vector<uint32_t>(200, 1), .siblings = {0}}),
              HasSubstr("the prompt has 200 tokens, want at most 199"));
  EXPECT_THAT(error({.prompt = {1}, .siblings = {0}, .sampling = {.stop_token_ids = {1000}}}),
              HasSubstr("stop token 1000 is not below"));
}

}  // namespace
}  // namespace rein::rollout
