// Holds the product by our own loop, in every form that this processor runs, against the product in fp64, on fresh random input.

#include "common/nn/linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace rein::nn {
namespace {

at::Tensor Product(Simd simd, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor y = at::full({x.size(0), weight.size(0)}, NAN);
  const DenseProduct product{x.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                             bias.defined() ? bias.const_data_ptr<float>() : nullptr, y.mutable_data_ptr<float>(),
                             x.size(0), weight.size(0), x.size(1)};
  const int64_t half = weight.size(0) / 2;  // as two threads
  MultiplyColumns(product, 0, half, simd);
  MultiplyColumns(product, half, weight.size(0), simd);
  return y;
}

TEST(LinearTest, IsTheProduct) {
  for (Simd simd : Simds()) {
    for (int64_t rows : {1, 2, 3, 4, 5, 7, 16, 150}) {
      for (int64_t columns : {1, 3, 4, 7, 64, 130}) {
        for (int64_t inner : {1, 3, 8, 15, 16, 17, 64, 577}) {
          at::Tensor x = at::randn({rows, inner}), weight = at::randn({columns, inner});
          at::Tensor bias = columns % 2 == 0 ? at::randn({columns}) : at::Tensor();
          at::Tensor wanted = at::linear(x.to(at::kDouble), weight.to(at::kDouble), bias.defined() ? bias.to(at::kDouble) : bias);
          const double worst = (Product(simd, x, weight, bias) - wanted).abs().max().item<double>();
          EXPECT_LE(worst, 1e-6 * static_cast<double>(inner + 8)) << rows << " x " << columns << " x " << inner;
        }
      }
    }
  }
}

TEST(LinearTest, ARowsBitsDependOnNoOther) {
  at::Tensor x = at::randn({83, 203}), weight = at::randn({37, 203});
  for (Simd simd : Simds()) {
    at::Tensor together = Product(simd, x, weight, {});
    for (int64_t i = 0; i < x.size(0); ++i) {
      EXPECT_TRUE(at::equal(Product(simd, x.narrow(0, i, 1), weight, {})[0], together[i])) << i;
    }
  }
}

TEST(LinearTest, TakesEveryDtypeAndShape) {
  for (at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    at::Tensor x = at::randn({6, 40}).to(dtype), weight = at::randn({12, 40}).to(dtype), bias = at::randn({12}).to(dtype);
    at::Tensor turned = at::randn({40, 12}).to(dtype).t();  // not dense
    for (const at::Tensor& w : {weight, turned}) {
      EXPECT_TRUE(at::allclose(Linear(x, w, bias), at::linear(x, w, bias), 1e-4, 1e-4)) << dtype;
      EXPECT_TRUE(at::allclose(Linear(x, w), at::linear(x, w), 1e-4, 1e-4)) << dtype;
    }
  }
  EXPECT_EQ(Linear(at::randn({0, 40}), at::randn({12, 40})).sizes(), at::IntArrayRef({0, 12}));
  at::Tensor many = at::randn({200, 40}), weight = at::randn({12, 40});
  EXPECT_TRUE(at::allclose(Linear(many, weight), at::linear(many, weight), 1e-4, 1e-4));
}

}  // namespace
}  // namespace rein::nn
