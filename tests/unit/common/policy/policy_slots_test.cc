#include "common/policy/policy_slots.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/policy/sequence_scorer.h"
#include "common/weights/digest.h"

namespace rein::policy {
namespace {

using ::testing::HasSubstr;

class PolicySlotsTest : public testing::Test {
 protected:
  std::unique_ptr<PolicySlots> Slots(SlotOptions options = {}) {
    auto slots = PolicySlots::Create(model_.spec, options);
    EXPECT_TRUE(slots.ok()) << slots.status();
    return *std::move(slots);
  }

  // Sends the golden weights, as a trainer would.
  absl::Status Send(PolicySlots& slots, weights::WeightReceiver& receiver,
                    weights::Version version) {
    at::Tensor arena = at::zeros({slots.registry().arena_elements()});
    absl::Status loaded = models::LoadWeights(kFolder, model_, slots.registry(), arena);
    EXPECT_TRUE(loaded.ok()) << loaded;
    const char* bytes = static_cast<const char*>(arena.const_data_ptr());
    std::vector<uint64_t> digests;
    for (const auto& parameter : slots.plan().parameters) {
      digests.push_back(weights::Digest(bytes + parameter.offset_bytes, parameter.size_bytes));
    }
    auto begun = receiver.Begin(version, slots.plan(), absl::Seconds(60));
    if (!begun.ok()) return begun.status();
    const uint64_t size = slots.plan().arena_bytes;
    for (uint64_t offset = 0; offset < size; offset += 1000) {
      absl::Status status =
          receiver.Write(version, offset, bytes + offset, std::min<uint64_t>(1000, size - offset));
      if (!status.ok()) return status;
    }
    return receiver.Commit(version, digests, weights::InFlight::kContinue);
  }

  static std::vector<float> Score(const PolicySlots& slots, std::vector<uint32_t> tokens) {
    return (*ScoreSequences(slots.decoder(), {{tokens, 1}}, 1.0))[0];
  }

  static constexpr const char* kFolder = "tests/golden/models/qwen3";
  models::ModelDescription model_ = *models::DescribeModel(kFolder);
  sync::RealClock clock_;
};

TEST_F(PolicySlotsTest, WeightsThatArriveAreThoseOfTheFolder) {
  auto loaded = Slots();
  ASSERT_TRUE(loaded->LoadFolder(kFolder, model_).ok());
  for (bool keep_idle : {true, false}) {
    auto received = Slots({.keep_idle = keep_idle});
    weights::WeightReceiver receiver(*received, clock_);
    for (uint64_t number : {0, 1, 2}) {
      absl::Status status = Send(*received, receiver, {1, number});
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(Score(*received, {1, 2, 3, 4}), Score(*loaded, {1, 2, 3, 4}));
    }
  }
}

TEST_F(PolicySlotsTest, NothingInUseChangesBeforeTheSwap) {
  auto slots = Slots();
  std::vector<float> before = Score(*slots, {1, 2, 3});
  weights::WeightReceiver receiver(*slots, clock_);
  slots->SetSwapHook(
      [](const auto&, auto, const auto&) { return absl::UnavailableError("not now"); });
  EXPECT_TRUE(absl::IsUnavailable(Send(*slots, receiver, {1, 0})));
  EXPECT_EQ(Score(*slots, {1, 2, 3}), before);
}

TEST_F(PolicySlotsTest, ScoresDoNotDependOnTheBatch) {
  auto slots = Slots();
  ASSERT_TRUE(slots->LoadFolder(kFolder, model_).ok());
  std::vector<ScoredSequence> sequences;
  for (uint32_t n = 1; n < 20; ++n) {
    ScoredSequence sequence = {.prefix = 1 + n / 3};
    for (uint32_t i = 0; i < n; ++i) sequence.tokens.push_back((i * 11 + n) % 40);
    sequences.push_back(sequence);
  }
  auto all = *ScoreSequences(slots->decoder(), sequences, 0.8);
  for (size_t s = 0; s < sequences.size(); ++s) {
    EXPECT_EQ(all[s].size(), sequences[s].tokens.size() - sequences[s].prefix);
    EXPECT_EQ(all[s], (*ScoreSequences(slots->decoder(), {sequences[s]}, 0.8))[0]) << "bit for bit";
  }
}

TEST_F(PolicySlotsTest, ScoringRefusesBadSequences) {
  auto slots = Slots();
  auto error = [&](ScoredSequence sequence, double temperature = 1) {
    absl::Status status =
        ScoreSequences(slots->decoder(), {{{1, 2}, 1}, sequence}, temperature).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  const uint32_t context = static_cast<uint32_t>(model_.spec.max_positions);
  EXPECT_THAT(error({}), HasSubstr("sequence 1: 0 tokens, want 1 to"));
  EXPECT_THAT(error({std::vector<uint32_t>(context + 1, 1), 1}), HasSubstr("the model's context"));
  EXPECT_THAT(error({{1, 2}, 3}), HasSubstr("prefix is 3, want 1 to 2"));
  EXPECT_THAT(error({{1, 99999}, 1}),
              HasSubstr("token 1 is 99999, want an id below the vocabulary size"));
  EXPECT_THAT(error({{1}, 1}, 0), HasSubstr("temperature is 0, want above 0"));
}

}  // namespace
}  // namespace rein::policy
