#include "trainer/optim/adamw.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace rein::trainer {
namespace {

weights::Registry SomeRegistry() {
  return *weights::Registry::Create({{"a", {37, 11}, {}, true}, {"b", {11}, {}, false}, {"c", {300, 3}, {}, true}});
}

OptimizerState RandomState(const weights::Registry& registry) {
  const int64_t n = registry.arena_elements();
  return {{0, n}, at::randn({n}), at::randn({n}) * 0.1, at::rand({n}) * 0.01};
}

TEST(AdamWTest, OneStepByHand) {
  weights::Registry registry = *weights::Registry::Create({{"w", {1, 1}, {}, true}});
  const int64_t n = registry.arena_elements();
  OptimizerState state{{0, n}, at::full({n}, 2.0), at::zeros({n}), at::zeros({n})};
  AdamWStep(registry, {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 0, .weight_decay = 0.1}, 0.01, 1, 1,
            at::full({n}, -3.0), state);
  // Bias correction makes the first step exactly the learning rate against the gradient's sign.
  EXPECT_NEAR(state.master[0].item<float>(), 2.0 * (1 - 0.01 * 0.1) + 0.01, 1e-6);
  EXPECT_EQ(state.master[1].item<float>(), 2.0) << "padding is no parameter";
}

TEST(AdamWTest, MatchesItsReference) {
  weights::Registry registry = SomeRegistry();
  OptimizerState fast = RandomState(registry);
  OptimizerState slow{fast.slice, fast.master.clone(), fast.moment1.clone(), fast.moment2.clone()};
  const AdamWSettings settings{.weight_decay = 0.05};
  for (int step = 1; step <= 3; ++step) {
    at::Tensor grad = at::randn({registry.arena_elements()});
    AdamWStep(registry, settings, 1e-2, 0.5, step, grad, fast);
    AdamWStepReference(registry, settings, 1e-2, 0.5, step, grad, slow);
  }
  for (const weights::Parameter& p : registry.parameters()) {
    at::Tensor a = fast.master.narrow(0, p.offset, p.elements), b = slow.master.narrow(0, p.offset, p.elements);
    EXPECT_LE((a - b).abs().max().item<float>(), 2e-6) << p.spec.name;
  }
}

OptimizerState NarrowState(const weights::Registry& registry) {
  OptimizerState state = RandomState(registry);
  state.moment1 = state.moment1.to(at::kBFloat16);
  state.moment2 = state.moment2.to(at::kBFloat16);
  return state;
}

TEST(AdamWTest, NarrowMomentsMatchTheirReference) {
  weights::Registry registry = SomeRegistry();
  OptimizerState fast = NarrowState(registry);
  OptimizerState slow{fast.slice, fast.master.clone(), fast.moment1.clone(), fast.moment2.clone()};
  for (int step = 1; step <= 3; ++step) {
    at::Tensor grad = at::randn({registry.arena_elements()});
    AdamWStep(registry, {.weight_decay = 0.05, .seed = 7}, 1e-2, 0.5, step, grad, fast);
    AdamWStepReference(registry, {.weight_decay = 0.05, .seed = 7}, 1e-2, 0.5, step, grad, slow);
  }
  for (const weights::Parameter& p : registry.parameters()) {
    auto part = [&](const at::Tensor& of) { return of.narrow(0, p.offset, p.elements).to(at::kFloat); };
    EXPECT_LE((part(fast.master) - part(slow.master)).abs().max().item<float>(), 1e-3) << p.spec.name;
    // An ulp of fp32 in between rounds the other way now and then, by an ulp of bf16.
    for (auto [a, b] : {std::pair{&fast.moment1, &slow.moment1}, {&fast.moment2, &slow.moment2}}) {
      EXPECT_LE((part(*a) - part(*b)).abs().mean().item<float>(), 1e-4 * part(*b).abs().mean().item<float>()) << p.spec.name;
    }
  }
}

// Increments of a thousandth are less than half of a bf16's last place: rounded to the nearest they would all be lost.
TEST(AdamWTest, NarrowMomentsForgetNoSmallIncrements) {
  weights::Registry registry = *weights::Registry::Create({{"w", {64, 64}, {}, true}});
  const int64_t n = registry.arena_elements();
  OptimizerState state{{0, n}, at::zeros({n}), at::zeros({n}).to(at::kBFloat16), at::full({n}, 0.5).to(at::kBFloat16)};
  double wanted = 0.5;
  for (int step = 1; step <= 200; ++step) {
    AdamWStep(registry, {.beta2 = 0.999, .seed = 3}, 1e-3, 1, step, at::ones({n}), state);
    wanted = 0.999 * wanted + 0.001;
  }
  EXPECT_GT(wanted, 0.59);
  EXPECT_NEAR(state.moment2.to(at::kDouble).narrow(0, 0, 4096).mean().item<double>(), wanted, 2e-3);
  EXPECT_NEAR(state.moment1.to(at::kDouble).narrow(0, 0, 4096).mean().item<double>(), 1, 2e-3);
}

TEST(AdamWTest, SlicesGiveTheBitsOfTheWhole) {
  weights::Registry registry = SomeRegistry();
  OptimizerState whole = RandomState(registry);
  at::Tensor grad = at::randn({registry.arena_elements()});
  std::vector<at::Tensor> parts;
  for (int rank = 0; rank < 3; ++rank) {
    auto slice = registry.OptimizerSlice(rank, 3);
    auto cut = [&](const at::Tensor& x) { return x.narrow(0, slice.begin, slice.end - slice.begin).clone(); };
    OptimizerState part{slice, cut(whole.master), cut(whole.moment1), cut(whole.moment2)};
    AdamWStep(registry, {.weight_decay = 0.1}, 1e-2, 1, 5, cut(grad), part);
    parts.push_back(part.master);
  }
  AdamWStep(registry, {.weight_decay = 0.1}, 1e-2, 1, 5, grad, whole);
  EXPECT_TRUE(at::equal(at::cat(parts), whole.master));
}

TEST(AdamWTest, NarrowMomentsAreRoundedByTheirPlaceInTheArena) {
  weights::Registry registry = SomeRegistry();
  OptimizerState whole = NarrowState(registry);
  at::Tensor grad = at::randn({registry.arena_elements()});
  auto slice = registry.OptimizerSlice(1, 3);
  auto cut = [&](const at::Tensor& x) { return x.narrow(0, slice.begin, slice.end - slice.begin); };
  OptimizerState part{slice, cut(whole.master).clone(), cut(whole.moment1).clone(), cut(whole.moment2).clone()};
  AdamWStep(registry, {.seed = 5}, 1e-2, 1, 5, cut(grad).clone(), part);
  AdamWStep(registry, {.seed = 5}, 1e-2, 1, 5, grad, whole);
  EXPECT_TRUE(at::equal(part.moment1, cut(whole.moment1)));
  EXPECT_TRUE(at::equal(part.moment2, cut(whole.moment2)));
}

TEST(SquaredNormTest, SumsInDouble) {
  at::Tensor x = at::randn({200001});
  EXPECT_NEAR(SquaredNorm(x), x.to(at::kDouble).square().sum().item<double>(), 1e-6);
}

}  // namespace
}  // namespace rein::trainer
