// Holds each function's forward and backward against the same formula composed from ATen operations
// that autograd differentiates, in fp32, on fresh random input.

#include "common/nn/functions.h"
#include "common/nn/activation.h"
#include "common/nn/norm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "common/nn/attention.h"
#include "common/nn/candidate_logprobs.h"
#include "common/nn/head.h"
#include "common/nn/query_key_value.h"

namespace rein::nn {
namespace {

Weight RandomWeight(std::vector<int64_t> shape) {
  return {at::randn(shape), at::zeros(shape)};
}

at::Tensor Leaf(const at::Tensor& x) { return x.detach().clone().requires_grad_(true); }

void ExpectClose(const at::Tensor& actual, const at::Tensor& wanted, const char* what) {
  ASSERT_TRUE(actual.defined()) << what;
  ASSERT_EQ(actual.sizes(), wanted.sizes()) << what;
  const double scale = std::max(1.0, wanted.abs().max().item<double>());
  EXPECT_LE((actual - wanted).abs().max().item<double>(), 5e-5 * scale) << what;  // fp32 sums in another order
}

// Runs both on equal leaves and an equal random output gradient.
template <typename Ours, typename Plain>
void Compare(const at::Tensor& x, Ours ours, Plain plain) {
  at::Tensor a = Leaf(x), b = Leaf(x);
  at::Tensor y = ours(a), wanted = plain(b);
  ExpectClose(y.detach(), wanted.detach(), "forward");
  at::Tensor dy = at::randn_like(wanted);
  y.backward(dy);
  wanted.backward(dy);
  ExpectClose(a.grad(), b.grad(), "input gradient");
  at::NoGradGuard no_grad;
  ExpectClose(ours(x), wanted.detach(), "forward without graph");
}

TEST(FunctionsTest, RmsNorm) {
  for (std::vector<int64_t> shape : {std::vector<int64_t>{7, 24}, {5, 3, 16}, {1, 8}}) {
    Weight weight = RandomWeight({shape.back()});
    at::Tensor leaf = Leaf(weight.value);
    Compare(
        at::randn(shape), [&](const at::Tensor& x) { return RmsNorm(x, weight, 1e-5); },
        [&](const at::Tensor& x) {
          return x * (x.square().mean(-1, true) + 1e-5).rsqrt() * leaf;
        });
    ExpectClose(weight.grad, leaf.grad(), "weight gradient");
  }
}

TEST(FunctionsTest, ProjectionWithAndWithoutBias) {
  for (bool with_bias : {true, false}) {
    Weight weight = RandomWeight({11, 6}), bias = with_bias ? RandomWeight({11}) : Weight{};
    at::Tensor weight_leaf = Leaf(weight.value);
    at::Tensor bias_leaf = with_bias ? Leaf(bias.value) : at::Tensor();
    Compare(
        at::randn({9, 6}), [&](const at::Tensor& x) { return Projection(x, weight, bias); },
        [&](const at::Tensor& x) { return at::linear(x, weight_leaf, bias_leaf); });
    ExpectClose(weight.grad, weight_leaf.grad(), "weight gradient");
    if (with_bias) ExpectClose(bias.grad, bias_leaf.grad(), "bias gradient");
  }
}

TEST(FunctionsTest, GradientsAccumulate) {
  Weight weight = RandomWeight({4, 3});
  at::Tensor x = Leaf(at::randn({5, 3}));
  Projection(x, weight, {}).sum().backward();
  at::Tensor once = weight.grad.clone();
  Projection(x, weight, {}).sum().backward();
  ExpectClose(weight.grad, once * 2, "two passes");
}

TEST(FunctionsTest, AddRmsNormSumsAndNorms) {
  Weight weight = RandomWeight({16});
  at::Tensor leaf = Leaf(weight.value), delta = at::randn({5, 16});
  at::Tensor delta_a = Leaf(delta), delta_b = Leaf(delta);
  Compare(
      at::randn({5, 16}),
      [&](const at::Tensor& x) {
        SumAndNorm out = AddNorm(x, delta_a, NormKind::kRms, {weight, {}}, 1e-5);
        return out.sum * 0.5 + out.norm;
      },
      [&](const at::Tensor& x) {
        at::Tensor sum = x + delta_b;
        return sum * 0.5 + sum * (sum.square().mean(-1, true) + 1e-5).rsqrt() * leaf;
      });
  ExpectClose(delta_a.grad(), delta_b.grad(), "delta gradient");
  ExpectClose(weight.grad, leaf.grad(), "weight gradient");
  at::Tensor x = at::randn({2, 16});
  EXPECT_TRUE(at::equal(AddNorm(x, {}, NormKind::kRms, {weight, {}}, 1e-5).sum, x));
}

TEST(FunctionsTest, SplitQueryKeyValueNormsAndTurns) {
  const HeadShape shape{3, 2, 8};
  at::Tensor angle = at::rand({6, 4}) * 6;
  const Rotary rotary{angle.cos(), angle.sin()};
  SequenceView view = PackedSequences({6}, at::kCPU);
  Weight norm = RandomWeight({8});
  at::Tensor leaf = Leaf(norm.value);
  auto plain = [&](const at::Tensor& x, bool normed) {
    at::Tensor y = normed ? x * (x.square().mean(-1, true) + 1e-5).rsqrt() * leaf : x;
    at::Tensor first = y.narrow(2, 0, 4), second = y.narrow(2, 4, 4);
    at::Tensor c = rotary.cos.unsqueeze(1), s = rotary.sin.unsqueeze(1);
    return at::cat({first * c - second * s, second * c + first * s}, 2);
  };
  Compare(
      at::randn({6, 7 * 8}),
      [&](const at::Tensor& x) {
        QueryKeyValue out = SplitQueryKeyValue(x, shape, norm, {}, 1e-5, rotary, view, 0);
        return at::cat({out.q_THC, out.k_TKC, out.v_TKC}, 1);
      },
      [&](const at::Tensor& x) {
        at::Tensor heads = x.view({6, 7, 8});
        return at::cat({plain(heads.narrow(1, 0, 3), true), plain(heads.narrow(1, 3, 2), false),
                        heads.narrow(1, 5, 2)},
                       1);
      });
  ExpectClose(norm.grad, leaf.grad(), "norm gradient");
}

TEST(FunctionsTest, GatedSilu) {
  Compare(
      at::randn({7, 10}), [](const at::Tensor& x) { return Gated(x, {}); },
      [](const at::Tensor& x) {
        return at::silu(x.narrow(1, 0, 5)) * x.narrow(1, 5, 5);
      });
}

TEST(FunctionsTest, EmbeddingAddsUpRepeatedTokens) {
  Weight table = RandomWeight({5, 3});
  at::Tensor token = at::tensor({1, 4, 1}, at::kLong);
  at::Tensor out = Embedding(token, table);
  ExpectClose(out.detach(), table.value.index_select(0, token), "forward");
  at::Tensor dy = at::randn({3, 3});
  out.backward(dy);
  ExpectClose(table.grad[1], dy[0] + dy[2], "row 1");
  EXPECT_EQ(table.grad[0].abs().max().item<float>(), 0);
}

TEST(FunctionsTest, RecomputeGivesTheSameGradients) {
  Weight weight = RandomWeight({6, 6});
  auto block = [&](const Residual& in) -> Residual {
    auto [sum, norm] = AddNorm(in.x_TD, in.delta_TD, NormKind::kRms, {{at::ones({6}), {}}, {}}, 1e-6);
    return {sum, Projection(norm, weight, {})};
  };
  auto run = [&](const at::Tensor& x, const at::Tensor& delta, bool recompute) {
    Residual out{x, delta};
    for (int n = 0; n < 2; ++n) out = recompute ? Recompute(block, out) : block(out);
    return out.x_TD + out.delta_TD;
  };
  for (bool with_delta : {false, true}) {
    at::Tensor x = at::randn({4, 6}), delta = at::randn({4, 6}), dy = at::randn({4, 6});
    at::Tensor a = Leaf(x), b = Leaf(x), none, delta_a = Leaf(delta), delta_b = Leaf(delta);
    weight.grad.zero_();
    run(a, with_delta ? delta_a : none, false).backward(dy);
    at::Tensor plain = weight.grad.clone();
    weight.grad.zero_();
    run(b, with_delta ? delta_b : none, true).backward(dy);
    EXPECT_TRUE(at::equal(a.grad(), b.grad()));
    EXPECT_TRUE(!with_delta || at::equal(delta_a.grad(), delta_b.grad()));
    EXPECT_TRUE(at::equal(weight.grad, plain));
  }
}

// An output kept by its own node is a cycle that nothing frees.
TEST(FunctionsTest, GraphsAreFreed) {
  Weight square = RandomWeight({6, 6}), row = RandomWeight({6});
  at::Tensor angle = at::rand({4, 3}), target = at::zeros({4}, at::kLong);
  auto uses_after = [&](const std::vector<int64_t>& shape, auto function) {
    at::Tensor x = Leaf(at::randn(shape));
    { at::Tensor y = function(x); }
    return x.use_count();
  };
  EXPECT_EQ(uses_after({4, 6}, [&](const at::Tensor& x) { return RmsNorm(x, row, 1e-6); }), 1u);
  EXPECT_EQ(uses_after({4, 6}, [&](const at::Tensor& x) { return Projection(x, square, row); }), 1u);
  EXPECT_EQ(uses_after({4, 24}, [&](const at::Tensor& x) {
              SequenceView view = PackedSequences({4}, at::kCPU);
              return SplitQueryKeyValue(x, {2, 1, 6}, row, row, 1e-6, {angle, angle}, view, 0).q_THC;
            }), 1u);
  EXPECT_EQ(uses_after({4, 6}, [&](const at::Tensor& x) { return Gated(x, {}); }), 1u);
  EXPECT_EQ(uses_after({4, 6}, [&](const at::Tensor& x) {
              return Recompute([](const Residual& in) { return Residual{in.x_TD * 2, in.x_TD}; }, {x, {}}).x_TD;
            }), 1u);
  EXPECT_EQ(uses_after({4, 6}, [&](const at::Tensor& x) {
              return HeadLogprobs(x, square, target, 1).logprob_N;
            }), 1u);
  EXPECT_EQ(uses_after({4, 2, 6}, [&](const at::Tensor& x) {
              SequenceView view = PackedSequences({4}, at::kCPU);
              return Attention(x, x, x, view, 0, 1);
            }), 1u);
}

TEST(HeadTest, MatchesLogSoftmaxAndItsEntropy) {
  for (double temperature : {1.0, 0.7}) {
    Weight head = RandomWeight({13, 6});
    at::Tensor leaf = Leaf(head.value);
    at::Tensor target = at::randint(13, {9}, at::kLong);
    at::Tensor x = at::randn({9, 6});
    at::Tensor a = Leaf(x), b = Leaf(x);
    TokenLogprobs out = HeadLogprobs(a, head, target, temperature);
    at::Tensor log_p = at::log_softmax(at::linear(b, leaf) / temperature, 1);
    at::Tensor logprob = log_p.gather(1, target.unsqueeze(1)).squeeze(1);
    at::Tensor entropy = -(log_p.exp() * log_p).sum(1);
    ExpectClose(out.logprob_N.detach(), logprob.detach(), "logprob");
    ExpectClose(out.entropy_N.detach(), entropy.detach(), "entropy");
    at::Tensor d1 = at::randn({9}), d2 = at::randn({9});
    (out.logprob_N * d1 + out.entropy_N * d2).sum().backward();
    (logprob * d1 + entropy * d2).sum().backward();
    ExpectClose(a.grad(), b.grad(), "hidden gradient");
    ExpectClose(head.grad, leaf.grad(), "head gradient");
  }
}

TEST(FunctionsTest, RowsMayBeTakenSeveralTimes) {
  at::Tensor x = at::randn({5, 3}).requires_grad_(true);
  at::Tensor index = at::tensor({4, 1, 4, 4, 0}, at::kLong), dy = at::randn({5, 3});
  at::Tensor rows = Rows(x, index);
  EXPECT_TRUE(at::equal(rows, x.detach().index_select(0, index)));
  rows.backward(dy);
  EXPECT_TRUE(at::allclose(x.grad()[4], dy[0] + dy[2] + dy[3]));
  EXPECT_TRUE(at::equal(x.grad()[1], dy[1]));
  EXPECT_EQ(x.grad()[2].abs().max().item<float>(), 0);
}

// The target's neighbours, some of them twice.
TEST(CandidateLogprobsTest, AreThoseOfTheWholeHead) {
  at::manual_seed(5);
  const at::Tensor candidate = at::randint(23, {40, 6}, at::kLong);
  for (double softcap : {0.0, 3.0}) {
    const Weight head = RandomWeight({23, 8});
    at::Tensor plain_head = Leaf(head.value);
    Compare(
        at::randn({40, 8}), [&](const at::Tensor& x) { return CandidateLogprobs(x, head, candidate, 0.7, {.softcap = softcap}); },
        [&](const at::Tensor& x) {
          at::Tensor logits = at::linear(x, plain_head);
          if (softcap > 0) logits = softcap * (logits / softcap).tanh();
          return at::log_softmax(logits / 0.7, 1).gather(1, candidate);
        });
    ExpectClose(head.grad, plain_head.grad(), "head gradient");
  }
}

}  // namespace
}  // namespace rein::nn
