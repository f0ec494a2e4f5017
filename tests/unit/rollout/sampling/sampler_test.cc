#include "rollout/sampling/sampler.h"

#include <cmath>
#include <set>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/random/philox.h"
#include "rollout/sampling/gumbel_noise.h"

namespace rein::rollout {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

at::Tensor Rows(const at::Tensor& row_V, int64_t count) {
  return row_V.unsqueeze(0).expand({count, row_V.size(0)}).contiguous();
}

// Draws `count` tokens from one row of logits, each at its own position.
Draws DrawMany(const at::Tensor& row_V, RowDraw draw, int64_t count, uint64_t key = 1) {
  std::vector<RowDraw> rows(count, draw);
  for (int64_t i = 0; i < count; ++i) rows[i].noise = {key, static_cast<uint32_t>(i)};
  return Sample(Rows(row_V, count), rows);
}

double ChiSquared(const std::vector<uint32_t>& tokens, const at::Tensor& probability_V) {
  std::vector<int64_t> seen(probability_V.size(0));
  for (uint32_t token : tokens) ++seen[token];
  double sum = 0;
  for (size_t v = 0; v < seen.size(); ++v) {
    double wanted = probability_V[v].item<double>() * tokens.size();
    if (wanted == 0) {
      EXPECT_EQ(seen[v], 0);
    } else {
      sum += (seen[v] - wanted) * (seen[v] - wanted) / wanted;
    }
  }
  return sum;
}

TEST(GumbelNoiseTest, IsPhiloxOfKeyPositionAndIndex) {
  NoiseKey key = {0x123456789abcdef0, 7};
  at::Tensor noise = GumbelNoise({&key}, 100, at::kCPU);
  for (uint32_t v : {0u, 7u, 8u, 31u, 32u, 99u}) {
    uint32_t word = random::Philox({7, 8 * (v / 32) + v % 8, 0, 0}, key.key)[(v / 8) % 4];
    double u = (word + 0.5) / 4294967296.0;
    EXPECT_NEAR(noise[0][v].item<float>(), -std::log(-std::log1p(-u)), 1e-4) << v;
  }
}

TEST(GumbelNoiseTest, IsTheSameByTensors) {
  NoiseKey a = {0xfedcba9876543210, 0xffffffff}, b = {3, 0};
  std::vector<const NoiseKey*> keys = {&a, nullptr, &b};
  at::Tensor expected = GumbelNoise(keys, 77, at::kCPU);
  EXPECT_TRUE(at::equal(GumbelNoiseByTensors(keys, 77, at::kCPU), expected));
  EXPECT_EQ(expected[1].abs().max().item<float>(), 0);
}

// 7 degrees of freedom: above 29.9 in one of 10,000 tries; keys are fixed, so this cannot flicker.
TEST(SamplerTest, DrawsFollowTheSoftmax) {
  at::Tensor logits = at::tensor({0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5, 0.2}, at::kFloat);
  Draws draws = DrawMany(logits, {}, 40'000);
  EXPECT_LT(ChiSquared(draws.token, logits.softmax(0)), 29.9);
  draws = DrawMany(logits, {.temperature = 0.5}, 40'000);
  EXPECT_LT(ChiSquared(draws.token, (logits / 0.5).softmax(0)), 29.9);
}

TEST(SamplerTest, NeighbouringPositionsAndKeysAreIndependent) {
  at::Tensor logits = at::zeros({4});
  std::vector<uint32_t> tokens = DrawMany(logits, {}, 40'000).token;
  std::vector<uint32_t> pairs, others;
  for (size_t i = 0; i + 1 < tokens.size(); i += 2) pairs.push_back(4 * tokens[i] + tokens[i + 1]);
  std::vector<uint32_t> other = DrawMany(logits, {}, 40'000, /*key=*/2).token;
  for (size_t i = 0; i < tokens.size(); ++i) others.push_back(4 * tokens[i] + other[i]);
  at::Tensor uniform = at::full({16}, 1.0 / 16);
  EXPECT_LT(ChiSquared(pairs, uniform), 44.3) << "15 degrees of freedom, 1 in 10,000";
  EXPECT_LT(ChiSquared(others, uniform), 44.3);
}

TEST(SamplerTest, TheBatchDoesNotMatter) {
  at::Tensor logits = at::randn({16, 1000});
  std::vector<RowDraw> rows(16);
  for (uint32_t b = 0; b < 16; ++b) {
    rows[b] = {.temperature = b % 4 * 0.5, .top_k = b % 3 * 50, .noise = {b, 5}};
  }
  Draws all = Sample(logits, rows);
  std::vector<int64_t> order = {3, 15, 0, 7, 1, 9, 2, 8};
  std::vector<RowDraw> some;
  for (int64_t b : order) some.push_back(rows[b]);
  Draws part = Sample(logits.index_select(0, at::tensor(order)), some);
  for (size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(part.token[i], all.token[order[i]]);
    EXPECT_EQ(part.logprob[i], all.logprob[order[i]]) << "bit for bit";
  }
}

TEST(SamplerTest, LogprobsAreOfTheDistributionDrawnFrom) {
  at::Tensor logits = at::tensor({0.0, std::log(2.0), std::log(5.0)}, at::kFloat);
  Draws draws = DrawMany(logits, {.temperature = 1.0, .untempered = true}, 64);
  for (size_t i = 0; i < 64; ++i) {
    double p = draws.token[i] == 0 ? 0.125 : draws.token[i] == 1 ? 0.25 : 0.625;
    EXPECT_NEAR(draws.logprob[i], std::log(p), 1e-6);
    EXPECT_NEAR(draws.untempered_logprob[i], std::log(p), 1e-6);
  }
  draws = DrawMany(logits, {.temperature = 0.5, .top_k = 2, .untempered = true}, 64);
  for (size_t i = 0; i < 64; ++i) {
    ASSERT_NE(draws.token[i], 0u);
    EXPECT_NEAR(draws.logprob[i], std::log((draws.token[i] == 1 ? 4 : 25) / 29.0), 1e-6);
    EXPECT_NEAR(draws.untempered_logprob[i], std::log(draws.token[i] == 1 ? 0.25 : 0.625), 1e-6);
  }
}

TEST(SamplerTest, GreedyTakesTheLikeliest) {
  at::Tensor logits = at::tensor({0.0, 2.0, 1.0, 2.0}, at::kFloat);
  Draws draws = DrawMany(logits, {.temperature = 0, .top_k = 1}, 3);
  EXPECT_THAT(draws.token, ElementsAre(1, 1, 1)) << "the lowest id among equals";
  EXPECT_NEAR(draws.logprob[0], logits.log_softmax(0)[1].item<float>(), 1e-6);
  EXPECT_TRUE(draws.untempered_logprob.empty());
}

std::set<uint32_t> Support(const at::Tensor& logits, const RowDraw& draw) {
  std::vector<uint32_t> tokens = DrawMany(logits, draw, 1500).token;
  return {tokens.begin(), tokens.end()};
}

TEST(SamplerTest, FiltersKeepWhatTheyPromise) {
  at::Tensor logits = at::tensor({0.1, 0.4, 0.2, 0.3}, at::kFloat).log();
  EXPECT_THAT(Support(logits, {.top_k = 1}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.top_k = 3}), ElementsAre(1, 2, 3));
  EXPECT_THAT(Support(logits, {.top_k = 9}), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Support(logits, {.top_p = 0.39}), ElementsAre(1));
  EXPECT_THAT(Support(logits, {.top_p = 0.41}), ElementsAre(1, 3));
  EXPECT_THAT(Support(logits, {.top_p = 0.95}), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Support(logits, {.min_p = 0.6}), ElementsAre(1, 3));
  EXPECT_THAT(Support(logits, {.top_k = 2, .top_p = 0.5}), ElementsAre(1)) << "0.4 / 0.7 is enough";
  EXPECT_THAT(Support(logits, {.top_p = 1e-9}), ElementsAre(1)) << "the likeliest always stays";
}

TEST(SamplerTest, WideFiltersLookAtEveryToken) {
  at::Tensor logits = at::zeros({5000});
  logits[7] = 1.0;
  std::set<uint32_t> support = Support(logits, {.top_p = 0.9});
  EXPECT_GT(support.size(), 1100u) << "1500 draws among 4500 equals";
  logits.slice(0, 0, 2500).fill_(-20.0);
  support = Support(logits, {.min_p = 0.5});
  EXPECT_GT(support.size(), 1000u);
  EXPECT_GE(*support.begin(), 2500u);
}

TEST(SamplerTest, BannedTokensAreNeverDrawn) {
  at::Tensor logits = at::tensor({0.0, 9.0, 1.0}, at::kFloat);
  EXPECT_THAT(Support(logits, {.banned = {1, 77}}), ElementsAre(0, 2));
  Draws greedy = DrawMany(logits, {.temperature = 0, .banned = {1}}, 1);
  EXPECT_THAT(greedy.token, ElementsAre(2));
  EXPECT_THAT(greedy.logprob, ElementsAre(FloatNear(-std::log1p(std::exp(-1.0)), 1e-6)));
}

// Values of transformers 5.23 RepetitionPenaltyLogitsProcessor and of vLLM's apply_penalties, worked out by hand.
TEST(PenaltiesTest, AreThoseOfTransformersAndVllm) {
  RowDraw draw;
  draw.seen = {0, 1, 4, 4, 2};  // the prompt is 0, 1
  draw.prompt_tokens = 2;
  draw.penalties = {.repetition = 2, .presence = 0.5, .frequency = 0.25};
  at::Tensor logits = at::tensor({3.0f, -1.0f, 2.0f, 5.0f, -4.0f, 0.0f}).unsqueeze(0);
  at::Tensor penalised = logits.clone();
  Penalise({draw}, penalised);
  // seen: positive / 2, else * 2; written: 2 once, 4 twice.
  at::Tensor want = at::tensor({1.5f, -2.0f, 1.0f - 0.75f, 5.0f, -8.0f - 1.0f, 0.0f}).unsqueeze(0);
  EXPECT_TRUE(at::equal(penalised, want)) << penalised;
  // A token that only the device knows counts as written.
  at::Tensor behind = logits.clone();
  draw.seen.pop_back();
  Penalise({draw}, behind, {at::tensor({int64_t{2}}, at::kLong)});
  EXPECT_TRUE(at::equal(behind, want)) << behind;
  draw.penalties = {};
  Penalise({draw}, behind = logits.clone());
  EXPECT_TRUE(at::equal(behind, logits));
}

TEST(PenaltiesTest, ComeBeforeTemperatureAndFiltersAndCountInTheLogProb) {
  RowDraw draw;
  draw.temperature = 0.5;
  draw.top_k = 2;
  draw.untempered = true;
  draw.seen = {0, 0};
  draw.penalties = {.frequency = 1};
  at::Tensor row = at::tensor({3.0f, 2.0f, 1.5f, 0.0f});  // penalised: 1, 2, 1.5, 0
  Draws draws = DrawMany(row, draw, 2000);
  const double share = std::exp(4.0) / (std::exp(4.0) + std::exp(3.0));
  double first = 0;
  for (size_t i = 0; i < draws.token.size(); ++i) {
    ASSERT_TRUE(draws.token[i] == 1 || draws.token[i] == 2) << draws.token[i];
    first += draws.token[i] == 1;
    EXPECT_NEAR(draws.logprob[i], std::log(draws.token[i] == 1 ? share : 1 - share), 1e-5);
    EXPECT_NEAR(draws.untempered_logprob[i], row.log_softmax(0)[draws.token[i]].item<float>(), 1e-5) << "of the model's own";
  }
  EXPECT_NEAR(first / 2000, share, 0.04);
  draw.temperature = 0;
  draws = DrawMany(row, draw, 1);
  EXPECT_EQ(draws.token[0], 1u) << "greedy: the likeliest after penalties";
  EXPECT_NEAR(draws.logprob[0], at::tensor({1.0f, 2.0f, 1.5f, 0.0f}).log_softmax(0)[1].item<float>(), 1e-5);
}

}  // namespace
}  // namespace rein::rollout
