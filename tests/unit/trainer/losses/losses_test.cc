// What the losses promise beside their golden vectors: identities on policy, independence of the split,
// straight-through gradients, values by hand where no golden vector is.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "trainer/losses/distillation.h"
#include "trainer/losses/bradley_terry.h"
#include "trainer/losses/cispo.h"
#include "trainer/losses/clipped_surrogate.h"
#include "trainer/losses/covariance.h"
#include "trainer/losses/dpo.h"
#include "trainer/losses/dppo.h"
#include "trainer/losses/geometric_surrogate.h"
#include "trainer/losses/kl.h"
#include "trainer/losses/kto.h"
#include "trainer/losses/off_policy.h"
#include "trainer/losses/orpo.h"
#include "trainer/losses/ratio.h"
#include "trainer/losses/reinforce.h"
#include "trainer/losses/sapo.h"
#include "trainer/losses/simpo.h"

namespace rein::trainer {
namespace {

at::Tensor D(const std::vector<double>& x) { return at::tensor(x, at::kDouble); }
double Value(const at::Tensor& x) { return x.item<double>(); }

using Objective = std::function<SurrogateLoss(const at::Tensor& policy, const at::Tensor& old,
                                              const at::Tensor& advantage, const Segments& segments)>;

std::vector<std::pair<const char*, Objective>> Objectives() {
  return {{"clip", [](auto& p, auto& o, auto& a, auto&) { return ClippedSurrogate(TokenLogRatio(p, o), a, {}); }},
          {"gspo", [](auto& p, auto& o, auto& a, auto& s) { return ClippedSurrogate(SequenceLogRatio(p, o, s), a, {}); }},
          {"gmpo", [](auto& p, auto& o, auto& a, auto& s) { return GeometricSurrogate(p, o, a, {}, s); }},
          {"sapo", [](auto& p, auto& o, auto& a, auto&) { return SoftGated(TokenLogRatio(p, o), a, {}); }},
          {"cispo", [](auto& p, auto& o, auto& a, auto&) { return Cispo(p, TokenLogRatio(p, o), a, {}); }},
          {"dppo_tv", [](auto& p, auto& o, auto& a, auto&) { return DivergenceMasked(p, o, a, {}); }},
          {"dppo_kl", [](auto& p, auto& o, auto& a, auto&) {
             return DivergenceMasked(p, o, a, {Divergence::kKl, 0.1, 0.1, 20});
           }},
          {"reinforce", [](auto& p, auto& o, auto& a, auto&) { return Reinforce(p, TokenLogRatio(p, o), a); }}};
}

// On policy every objective is the plain policy gradient: d loss / d policy = -A, and the ratio exactly 1.
TEST(SurrogatesTest, OnPolicyAllAreThePolicyGradient) {
  const Segments segments = Segments::Of({2, 3}, at::kCPU);
  at::Tensor old = D({-0.5, -1, -2, -0.1, -3}), advantage = D({1, 1, -2, -2, -2});
  for (const auto& [name, objective] : Objectives()) {
    at::Tensor policy = old.clone().requires_grad_(true);
    SurrogateLoss out = objective(policy, old, advantage, segments);
    EXPECT_TRUE(out.ratio_T.eq(1).all().item<bool>()) << name << out.ratio_T;
    EXPECT_EQ(Value(out.clipped_low_T.sum() + out.clipped_high_T.sum()), 0) << name;
    out.loss_T.sum().backward();
    EXPECT_TRUE(at::allclose(policy.grad(), -advantage)) << name << policy.grad();
  }
}

// Sequences that are computed apart give the same losses and gradients as together.
TEST(SurrogatesTest, AnySplitIntoMicrobatchesIsTheSame) {
  at::Tensor old = D({-0.5, -1, -2, -0.1, -3}), start = D({-0.4, -1.3, -1, -0.2, -2.5});
  at::Tensor advantage = D({1, 1, -2, -2, -2});
  for (const auto& [name, objective] : Objectives()) {
    at::Tensor together = start.clone().requires_grad_(true), apart = start.clone().requires_grad_(true);
    objective(together, old, advantage, Segments::Of({2, 3}, at::kCPU)).loss_T.sum().backward();
    auto part = [&](int64_t begin, int64_t count) {
      return objective(apart.narrow(0, begin, count), old.narrow(0, begin, count),
                       advantage.narrow(0, begin, count), Segments::Of({count}, at::kCPU))
          .loss_T.sum();
    };
    (part(0, 2) + part(2, 3)).backward();
    EXPECT_TRUE(at::equal(together.grad(), apart.grad())) << name;
  }
}

// GSPO's and GMPO's token gradients add up to that of the sequence's ratio itself.
TEST(SurrogatesTest, SequenceRatiosHaveTheirOwnGradient) {
  const Segments segments = Segments::Of({3}, at::kCPU);
  at::Tensor old = D({-1, -2, -0.5}), advantage = D({2, 2, 2});
  at::Tensor policy = D({-1.05, -1.9, -0.5}).requires_grad_(true);
  SurrogateLoss out = ClippedSurrogate(SequenceLogRatio(policy, old, segments), advantage, {});
  out.loss_T.mean().backward();
  at::Tensor direct = D({-1.05, -1.9, -0.5}).requires_grad_(true);
  (-2 * (direct - old).mean().exp()).backward();
  EXPECT_TRUE(at::allclose(policy.grad(), direct.grad()));
}

TEST(SegmentsTest, SequencesWithoutTargetsAreZero) {
  const Segments segments = Segments::Of({2, 0, 1}, at::kCPU);
  EXPECT_TRUE(at::equal(SumOf(D({1, 2, 4}), segments), D({3, 0, 4})));
  EXPECT_TRUE(at::equal(MeanOf(D({1, 2, 4}), segments), D({1.5, 0, 4})));
  EXPECT_TRUE(at::equal(SpreadOver(D({7, 8, 9}), segments), D({7, 7, 9})));
}

TEST(KlTest, StraightThroughFormsHaveTheGradientOfK2) {
  for (auto [form, value] : {std::pair{KlEstimator::kK1StraightThrough, KlEstimator::kK1},
                             {KlEstimator::kK3StraightThrough, KlEstimator::kK3}}) {
    at::Tensor policy = D({-1, -2}).requires_grad_(true), reference = D({-1.5, -1});
    at::Tensor kl = Kl(policy, reference, form);
    EXPECT_TRUE(at::allclose(kl, Kl(policy.detach(), reference, value)));
    kl.sum().backward();
    EXPECT_TRUE(at::allclose(policy.grad(), D({0.5, -1})));
  }
}

// NeMo-RL tests/unit/algorithms/test_loss_functions.py, test_calculate_kl.
TEST(KlTest, HandComputed) {
  at::Tensor policy = D({-1, -1, -1}), reference = D({0, -15, -30});
  EXPECT_TRUE(at::allclose(Kl(policy, reference, KlEstimator::kK1), D({-1, 14, 29})));
  EXPECT_TRUE(at::allclose(Kl(policy, reference, KlEstimator::kK2), D({0.5, 98, 420.5})));
  EXPECT_TRUE(at::allclose(Kl(policy, reference, KlEstimator::kK3, {false, false}),
                           D({std::exp(1.0) - 2, 13, 28}), 1e-5, 1e-5));
}

TEST(OffPolicyTest, SequenceMaskTakesOnlyNegativeOnesThatWentAway) {
  const Segments segments = Segments::Of({2, 1, 1}, at::kCPU);
  at::Tensor keep = NegativeSequenceMask(D({-3, -3, -3, -1}), D({-1, -1, -1, -1}), D({-1, -1, 1, -1}),
                                         segments, 0.1);
  EXPECT_TRUE(at::equal(keep, D({0, 0, 1, 1})));
}

PairLogprobs Pairs() {
  return {D({-4}), D({-6}), D({-4.5}), D({-6}), D({2}), D({4})};
}

TEST(DpoTest, AtTheReferenceTheLossIsLnTwo) {
  PairLogprobs pairs = Pairs();
  pairs.reference_chosen_P = pairs.chosen_P;
  pairs.reference_rejected_P = pairs.rejected_P;
  EXPECT_DOUBLE_EQ(Value(Dpo(pairs, {}).loss_P), std::log(2.0));
}

TEST(DpoTest, HingeAndReferenceFree) {
  // h = 0.5; reference-free h = 2.
  EXPECT_DOUBLE_EQ(Value(Dpo(Pairs(), {DpoLoss::kHinge, 0.5, 0}).loss_P), 0.75);
  PairLogprobs free = Pairs();
  free.reference_chosen_P = free.reference_rejected_P = at::Tensor();
  EXPECT_DOUBLE_EQ(Value(Dpo(free, {DpoLoss::kHinge, 0.25, 0}).loss_P), 0.5);
}

TEST(SimpoTest, HandComputed) {
  // Means -2 and -1.5: beta * -0.5 - gamma = -2.
  EXPECT_NEAR(Value(Simpo(Pairs(), {.beta = 2, .gamma = 1}).loss_P), std::log1p(std::exp(2.0)), 1e-12);
}

TEST(OrpoTest, HandComputedAndFiniteWhenCertain) {
  auto odds = [](double mean) { return std::exp(mean) / (1 - std::exp(mean)); };
  const double ratio = odds(-2) / odds(-1.5);
  EXPECT_NEAR(Value(Orpo(Pairs(), 0.1).loss_P), 2 + 0.1 * std::log1p(1 / ratio), 1e-12);
  PairLogprobs certain = Pairs();
  certain.chosen_P = D({0}).requires_grad_(true);
  at::Tensor loss = Orpo(certain, 0.1).loss_P;
  loss.sum().backward();
  EXPECT_TRUE(std::isfinite(Value(loss)) && std::isfinite(Value(certain.chosen_P.grad())));
}

TEST(KtoTest, HandComputed) {
  auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  KtoLoss out = Kto(D({-1, -1}), D({-3, -3}), D({1, 0}), 1, {.beta = 0.5, .undesirable_weight = 2});
  EXPECT_NEAR(Value(out.loss_S[0]), 1 - sigmoid(0.5), 1e-12);
  EXPECT_NEAR(Value(out.loss_S[1]), 2 * (1 - sigmoid(-0.5)), 1e-12);
}

// 2 sequences; means: log-prob -2, advantage 0.
TEST(CovarianceTest, IsOfAllTokensTogether) {
  const TokenRows logprob = {{-1, -3}, {-2, -2}}, advantage = {{1, 1}, {-1, -1}};
  EXPECT_EQ(Covariances(logprob, advantage), (TokenRows{{1, -1}, {-0.0, -0.0}}));
}

TEST(CovarianceTest, TheHighestShareIsAtLeastOneToken) {
  const TokenRows covariance = {{0.5, 3, -1}, {2, 0}};
  EXPECT_EQ(HighestShare(covariance, 1e-6), (TokenChoice{{0, 1, 0}, {0, 0}}));
  EXPECT_EQ(HighestShare(covariance, 0.4), (TokenChoice{{0, 1, 0}, {1, 0}}));
  EXPECT_EQ(HighestShare(covariance, 1), (TokenChoice{{1, 1, 1}, {1, 1}}));
}

TEST(CovarianceTest, DrawsInsideTheRangeByPlaceAndKeyAlone) {
  TokenRows covariance(50, std::vector<double>(20, 2.0));
  covariance[0].assign(20, 0.5);  // below
  covariance[1].assign(20, 9.0);  // above
  auto count = [](const TokenChoice& choice) {
    int n = 0;
    for (const auto& row : choice) n += std::accumulate(row.begin(), row.end(), 0);
    return n;
  };
  const TokenChoice first = DrawInRange(covariance, {1, 5}, 0.1, 7);
  EXPECT_EQ(count(first), 100);
  EXPECT_EQ(count({first[0], first[1]}), 0);
  EXPECT_EQ(first, DrawInRange(covariance, {1, 5}, 0.1, 7));
  EXPECT_NE(first, DrawInRange(covariance, {1, 5}, 0.1, 8));
  EXPECT_EQ(count(DrawInRange(covariance, {1, 5}, 1, 7)), 960) << "no more than there are";
  EXPECT_EQ(count(DrawInRange(covariance, {20, 30}, 0.1, 7)), 0);
}

// The whole vocabulary against the definition; a part of it never above, never below 0, with a gradient that autograd of the
// definition confirms at the full size.
TEST(DistillationTest, IsTheDivergenceOverTheTeachersCandidates) {
  at::manual_seed(3);
  const at::Tensor policy = at::randn({5, 12}, at::kDouble), teacher = at::randn({5, 12}, at::kDouble);
  for (TeacherDivergence direction : {TeacherDivergence::kForward, TeacherDivergence::kReverse}) {
    at::Tensor a = policy.clone().requires_grad_(true), b = policy.clone().requires_grad_(true);
    at::Tensor p = teacher.log_softmax(1);
    at::Tensor ours = DistillationLoss(a.log_softmax(1), p, /*rest=*/false, direction);
    at::Tensor q = b.log_softmax(1);
    at::Tensor wanted = direction == TeacherDivergence::kForward ? (p.exp() * (p - q)).sum(1) : (q.exp() * (q - p)).sum(1);
    EXPECT_LE((ours - wanted).abs().max().item<double>(), 1e-12);
    ours.sum().backward();
    wanted.sum().backward();
    EXPECT_LE((a.grad() - b.grad()).abs().max().item<double>(), 1e-12);
    at::Tensor before = at::zeros({5}, at::kDouble);
    for (int64_t k : {1, 3, 8}) {  // more candidates tell more apart
      auto [top, id] = p.topk(k, 1);
      at::Tensor part = DistillationLoss(policy.log_softmax(1).gather(1, id), top, /*rest=*/true, direction);
      EXPECT_TRUE((part >= before - 1e-9).all().item<bool>()) << k;
      EXPECT_TRUE((part <= wanted.detach() + 1e-9).all().item<bool>()) << k;
      before = part;
    }
    at::Tensor same = DistillationLoss(p, p, /*rest=*/false, direction);
    EXPECT_LE(same.abs().max().item<double>(), 1e-12);
  }
}

TEST(DistillationTest, ATeacherThatIsSureGivesFiniteGradients) {
  at::Tensor teacher = at::tensor({0.0f, -40.0f}).unsqueeze(0), policy = at::tensor({-1e-9f, -30.0f}).unsqueeze(0).requires_grad_(true);
  for (TeacherDivergence direction : {TeacherDivergence::kForward, TeacherDivergence::kReverse}) {
    at::Tensor loss = DistillationLoss(policy, teacher, /*rest=*/true, direction).sum();
    loss.backward();
    EXPECT_TRUE(std::isfinite(loss.item<float>()));
    EXPECT_TRUE(policy.grad().isfinite().all().item<bool>());
  }
}

}  // namespace
}  // namespace rein::trainer
