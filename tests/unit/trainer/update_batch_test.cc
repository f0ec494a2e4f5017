#include "trainer/update_batch.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trainer/sequence_check.h"

namespace rein::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::HasSubstr;

TrainingSequence Sequence(std::vector<uint8_t> mask, std::vector<double> weights) {
  TrainingSequence s;
  s.id = "s";
  s.token_ids.assign(mask.size(), 1);
  s.loss_mask = std::move(mask);
  s.target_rewards = std::move(weights);
  return s;
}

std::vector<float> Weights(const std::vector<TrainingSequence>& sequences, const Algorithm& algorithm) {
  UpdateBatch batch = PrepareBatch(sequences, algorithm, 0);
  std::vector<size_t> all;
  for (size_t i = 0; i < sequences.size(); ++i) all.push_back(i);
  batch.counts = CountTargets(sequences, all, algorithm);
  at::Tensor w = LossWeights(batch, algorithm, all);
  return {w.const_data_ptr<float>(), w.const_data_ptr<float>() + w.numel()};
}

// Of turns that weigh 0.5, 2 and nothing said: a target counts what it weighs, in the sum and in what divides it.
TEST(UpdateBatchTest, WeightedTargetsCountWhatTheyWeigh) {
  const std::vector<TrainingSequence> sequences = {Sequence({0, 1, 1, 0, 1}, {0.5, 0.5, 2}), Sequence({0, 0, 1, 1}, {})};
  EXPECT_THAT(Weights(sequences, Sft(Aggregation::kTokenMean)),
              ElementsAre(FloatEq(0.1f), FloatEq(0.1f), FloatEq(0.4f), FloatEq(0.2f), FloatEq(0.2f)));
  EXPECT_THAT(Weights(sequences, Sft(Aggregation::kSequenceMean)),
              ElementsAre(FloatEq(0.5f / 6), FloatEq(0.5f / 6), FloatEq(2.0f / 6), FloatEq(0.25f), FloatEq(0.25f)));
  EXPECT_THAT(Weights(sequences, Sft(Aggregation::kTokenSum)), ElementsAre(0.5f, 0.5f, 2.0f, 1.0f, 1.0f));
}

TEST(UpdateBatchTest, AWeightOfOneIsNoWeight) {
  for (Aggregation a : {Aggregation::kTokenMean, Aggregation::kSequenceMean, Aggregation::kSequenceSum}) {
    EXPECT_EQ(Weights({Sequence({0, 1, 1}, {1, 1}), Sequence({0, 1}, {1})}, Sft(a)),
              Weights({Sequence({0, 1, 1}, {}), Sequence({0, 1}, {})}, Sft(a)));
  }
}

// A batch whose weights sum to little is still a mean.
TEST(UpdateBatchTest, SmallWeightsOfAWholeBatchChangeNothing) {
  EXPECT_THAT(Weights({Sequence({0, 1, 1}, {0.1, 0.1})}, Sft(Aggregation::kTokenMean)),
              ElementsAre(FloatEq(0.5f), FloatEq(0.5f)));
}

TEST(UpdateBatchTest, WrongWeightsAreRefused) {
  const SequenceLimits limits{.max_length = 10, .vocab_size = 10};
  const Algorithm sft = Sft(Aggregation::kTokenMean);
  auto error = [&](const TrainingSequence& s, const Algorithm& algorithm) {
    return std::string(CheckSequences({s}, limits, &algorithm).message());
  };
  EXPECT_EQ(error(Sequence({0, 1, 1}, {1, 0.5}), sft), "");
  EXPECT_THAT(error(Sequence({0, 1, 1}, {1, -1}), sft), HasSubstr("has a target of weight -1, want at least 0"));
  EXPECT_THAT(error(Sequence({0, 1, 1}, {1}), sft), HasSubstr("has 1 target_rewards for 2 targets"));
  Algorithm other = sft;
  other.weighs_targets = false;
  other.name = "kto";
  EXPECT_THAT(error(Sequence({0, 1, 1}, {1, 0.5}), other), HasSubstr("weighted, which kto does not use"));
}

}  // namespace
}  // namespace rein::trainer
