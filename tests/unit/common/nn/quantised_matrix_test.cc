// Quantised matrices against bitsandbytes (tests/golden/quantisation.json) and against the definition, number by number.

#include "common/nn/quantised_matrix.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/kernels/unpack.h"
#include "common/nn/functions.h"

namespace rein::nn {
namespace {

using nlohmann::json;
using weights::Quantisation;

QuantisedMatrix Of(const at::Tensor& x, Quantisation format) {
  const int64_t scales = weights::ScaleCount(format, x.numel() / x.size(-1), x.numel());
  QuantisedMatrix m{format, at::zeros({weights::CodeBytes(format, x.numel())}, at::kByte), at::zeros({scales}), x.sizes().vec(), at::kFloat};
  Quantise(x, m);
  return m;
}

at::Tensor Floats(const json& list) { return at::tensor(list.get<std::vector<float>>()); }

TEST(QuantisedMatrixTest, IsThatOfBitsandbytes) {
  const json golden = json::parse(std::ifstream("tests/golden/quantisation.json"));
  for (int i = 0; i < 16; ++i) EXPECT_EQ(kernels::kNf4Table[i], golden["table"][i].get<float>());
  QuantisedMatrix nf4 = Of(Floats(golden["matrix"]).view({-1, 64}), Quantisation::kNf4);
  EXPECT_TRUE(at::equal(nf4.code.to(at::kFloat), Floats(golden["nf4"]["code"])));
  EXPECT_TRUE(at::equal(nf4.scale, Floats(golden["nf4"]["scale"])));
  EXPECT_TRUE(at::equal(Unpacked(nf4).flatten(), Floats(golden["nf4"]["numbers"])));

  QuantisedMatrix int8 = Of(Floats(golden["half"]).view({-1, 64}), Quantisation::kInt8);
  EXPECT_TRUE(at::equal(int8.code.view(at::kChar).to(at::kFloat), Floats(golden["int8"]["code"])));
  EXPECT_TRUE(at::allclose(int8.scale * 127, Floats(golden["int8"]["absmax"]), 1e-6, 0));
  EXPECT_TRUE(at::allclose(Unpacked(int8).flatten(), Floats(golden["int8"]["numbers"]), 1e-6, 0)) << "they multiply by 1 / 127 apart";
}

TEST(QuantisedMatrixTest, EachNumberIsTheNearestOfItsBlock) {
  at::manual_seed(3);
  at::Tensor x = at::randn({24, 96}) * at::rand({24, 1}).exp();
  for (Quantisation format : {Quantisation::kInt8, Quantisation::kNf4}) {
    at::Tensor got = Unpacked(Of(x, format)).flatten(), flat = x.flatten();
    const int64_t run = format == Quantisation::kNf4 ? 64 : 96;
    for (int64_t b = 0; b < flat.numel(); b += run) {
      double most = 0;
      for (int64_t i = b; i < b + run; ++i) most = std::max(most, std::abs(flat[i].item<double>()));
      for (int64_t i = b; i < b + run; ++i) {
        double nearest = 1e9;
        for (int code = 0; code < (format == Quantisation::kNf4 ? 16 : 255); ++code) {
          const double number = most * (format == Quantisation::kNf4 ? kernels::kNf4Table[code] : (code - 127) / 127.0);
          nearest = std::min(nearest, std::abs(number - flat[i].item<double>()));
        }
        EXPECT_NEAR(std::abs(got[i].item<double>() - flat[i].item<double>()), nearest, 2e-6 * most) << i;
      }
    }
  }
}

TEST(QuantisedMatrixTest, AMatrixOfSeveralAndOneOfThemAgree) {
  at::manual_seed(4);
  at::Tensor x = at::randn({3, 16, 32});
  for (Quantisation format : {Quantisation::kInt8, Quantisation::kNf4}) {
    QuantisedMatrix all = Of(x, format);
    for (int64_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(Unpacked(all.At(i)), Unpacked(all)[i]));
  }
}

TEST(QuantisedMatrixTest, WhatIsNotFiniteShowsInTheScale) {
  for (double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    for (Quantisation format : {Quantisation::kInt8, Quantisation::kNf4}) {
      at::Tensor x = at::randn({4, 64});
      x[2][5] = bad;
      at::Tensor scale = Of(x, format).scale;
      EXPECT_FALSE(std::isfinite(scale[2].item<float>()));
      EXPECT_TRUE(std::isfinite(scale[1].item<float>()));
    }
  }
}

// A projection over codes is one over their numbers, bit for bit, and so are its gradients.
TEST(QuantisedMatrixTest, AProjectionIsThatOfItsNumbers) {
  at::manual_seed(5);
  at::Tensor x = at::randn({16, 64}), w = at::randn({48, 64}), down = at::randn({4, 64}), up = at::randn({48, 4}), dy = at::randn({16, 48});
  for (Quantisation format : {Quantisation::kInt8, Quantisation::kNf4}) {
    auto matrix = std::make_shared<QuantisedMatrix>(Of(w, format));
    at::Tensor wanted[4];
    for (bool packed : {false, true}) {
      Weight weight;
      if (packed) {
        weight.quantised = matrix;
      } else {
        weight.value = Unpacked(*matrix);
      }
      at::Tensor down_grad = at::zeros_like(down), up_grad = at::zeros_like(up), in = x.clone().requires_grad_(true);
      weight.updates.push_back({0, 48, {down, down_grad}, {up, up_grad}, 0.5});
      at::Tensor y = Projection(in, weight, {});
      y.backward(dy);
      const at::Tensor got[] = {y.detach(), in.grad(), down_grad, up_grad};
      for (int i = 0; i < 4; ++i) {
        if (!packed) wanted[i] = got[i];
        EXPECT_TRUE(at::equal(got[i], wanted[i])) << i;
      }
      EXPECT_TRUE(at::equal(Merged(weight), Merged({Unpacked(*matrix), {}, weight.updates})));
    }
  }
}

}  // namespace
}  // namespace rein::nn
