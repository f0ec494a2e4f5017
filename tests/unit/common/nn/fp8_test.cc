#include "common/nn/fp8.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/nn/attention.h"
#include "common/nn/query_key_value.h"

namespace rein::nn {
namespace {

// All that e4m3 has from 0 on: four bits of exponent, bias 7, three of mantissa; the last pattern is NaN.
std::vector<double> Numbers() {
  std::vector<double> numbers;
  for (int exponent = 0; exponent < 16; ++exponent) {
    for (int mantissa = 0; mantissa < 8; ++mantissa) {
      if (exponent == 15 && mantissa == 7) continue;
      numbers.push_back(exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
    }
  }
  return numbers;
}

// Of two that are as near, the one with an even mantissa.
double Nearest(double x, const std::vector<double>& numbers) {
  size_t best = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const double distance = std::abs(numbers[i] - std::abs(x)), before = std::abs(numbers[best] - std::abs(x));
    if (distance < before || (distance == before && i % 2 == 0)) best = i;
  }
  return std::copysign(numbers[best], x);
}

TEST(Fp8Test, EachNumberBecomesTheNearest) {
  const std::vector<double> numbers = Numbers();
  std::vector<float> given = {448, 449, 1e6, -464, 480, 1e-9f};
  for (size_t i = 0; i + 1 < numbers.size(); ++i) {  // themselves, and the middle between two
    given.push_back(static_cast<float>(numbers[i]));
    given.push_back(static_cast<float>(-(numbers[i] + numbers[i + 1]) / 2));
  }
  at::Tensor x = at::cat({at::tensor(given), at::randn({2000}) * 2, at::randn({2000}) * 300});
  const at::Tensor rounded = RoundToFp8(x), narrow = ToFp8(x);
  EXPECT_EQ(narrow.scalar_type(), at::kFloat8_e4m3fn);
  EXPECT_TRUE(at::equal(narrow.to(at::kFloat), rounded));
  for (int64_t i = 0; i < x.numel(); ++i) {
    EXPECT_EQ(rounded[i].item<float>(), Nearest(x[i].item<float>(), numbers)) << x[i].item<float>();
  }
  // bf16 has all of these numbers.
  EXPECT_TRUE(at::equal(rounded.to(at::kBFloat16).to(at::kFloat), rounded));
  EXPECT_TRUE(at::equal(RoundToFp8(rounded), rounded));
}

// A NaN is not hidden, neither alone nor in what attends to it.
TEST(Fp8Test, NanStaysNanAndInfinityBecomesTheLargest) {
  const at::Tensor x = at::tensor({NAN, -NAN, INFINITY, -INFINITY}, at::kFloat), rounded = RoundToFp8(x);
  EXPECT_TRUE(rounded[0].isnan().item<bool>());
  EXPECT_TRUE(rounded[1].isnan().item<bool>());
  EXPECT_EQ(rounded[2].item<float>(), 448);
  EXPECT_EQ(rounded[3].item<float>(), -448);
  EXPECT_EQ(ToFp8(x).view(at::kByte)[0].item<int>() & 0x7F, 0x7F);
  at::Tensor key = at::randn({4, 2, 8}), value = at::randn({4, 2, 8}), q = at::randn({4, 2, 8});
  key[1][0][3] = NAN;
  const at::Tensor out = Attention(q, RoundToFp8(key), RoundToFp8(value), PackedSequences({4}, at::kCPU), 0, 0.3);
  EXPECT_TRUE(out[0].isfinite().all().item<bool>()) << "before it";
  for (int64_t t = 1; t < 4; ++t) EXPECT_TRUE(out[t].isnan().any().item<bool>()) << t;
}

TEST(Fp8Test, TheGradientPasses) {
  at::Tensor x = (at::randn({3, 5}) * 300).requires_grad_(true), dy = at::randn({3, 5});
  RoundToFp8(x).backward(dy);
  EXPECT_TRUE(at::equal(x.grad(), dy));
}

TEST(Fp8Test, KeysAndValuesAreRoundedAndQueriesNot) {
  const at::Tensor qkv = at::randn({4, 7 * 8}), angle = at::rand({4, 4});
  const SequenceView view = PackedSequences({4}, at::kCPU);
  const Rotary rotary{angle.cos(), angle.sin()};
  HeadShape shape{3, 2, 8};
  const QueryKeyValue full = SplitQueryKeyValue(qkv, shape, {}, {}, 1e-5, rotary, view, 0);
  shape.kv_fp8 = true;
  const QueryKeyValue rounded = SplitQueryKeyValue(qkv, shape, {}, {}, 1e-5, rotary, view, 0);
  EXPECT_TRUE(at::equal(rounded.q_THC, full.q_THC));
  EXPECT_TRUE(at::equal(rounded.k_TKC, RoundToFp8(full.k_TKC)));
  EXPECT_TRUE(at::equal(rounded.v_TKC, RoundToFp8(full.v_TKC)));
  EXPECT_FALSE(at::equal(rounded.k_TKC, full.k_TKC));
}

}  // namespace
}  // namespace rein::nn
