#include "common/nn/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

namespace rein::nn {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kMultiplyAdds = 1 << 15;  // not worth a second thread

// y[m, e] for m in [row, row + kRows), e in [column, column + kColumns): their sums stay in registers, each in kLanes partial sums.
template <int kLanes, int kRows, int kColumns>
REIN_INLINE void Tile(const DenseProduct& p, int64_t row, int64_t column) {
  using F = Floats<kLanes>;
  constexpr int kSums = kRows * kColumns;
  F sum[kSums] = {};
  const float *x = p.x + row * p.inner, *w = p.weight + column * p.inner;
  int64_t k = 0;
  for (; k + kLanes <= p.inner; k += kLanes) {
    F b[kColumns];
#pragma GCC unroll 8
    for (int e = 0; e < kColumns; ++e) b[e] = FloatsAt<kLanes>(w + e * p.inner + k);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const F a = FloatsAt<kLanes>(x + m * p.inner + k);
#pragma GCC unroll 8
      for (int e = 0; e < kColumns; ++e) sum[m * kColumns + e] += a * b[e];
    }
  }
  for (int i = 0; k < p.inner && i < kSums; ++i) {
    F rest = {};
    for (int64_t j = k; j < p.inner; ++j) rest[j - k] = x[i / kColumns * p.inner + j] * w[i % kColumns * p.inner + j];
    sum[i] += rest;
  }
  float total[kSums];
  if constexpr (kSums == kLanes) {
    AddLanes<kLanes>(sum);
    FloatsAt<kLanes>(total) = sum[0];
  } else {
    for (int i = 0; i < kSums; ++i) total[i] = TotalOf<kLanes>(sum[i]);
  }
  for (int i = 0; i < kSums; ++i) {
    const int64_t e = column + i % kColumns;
    p.y[(row + i / kColumns) * p.columns + e] = total[i] + (p.bias != nullptr ? p.bias[e] : 0.0f);
  }
}

template <int kLanes, int kRows, int kColumns>
REIN_INLINE void OfRows(const DenseProduct& p, int64_t row, int64_t end, int64_t column) {
  for (; row + kRows <= end; row += kRows) Tile<kLanes, kRows, kColumns>(p, row, column);
  for (; row < end; ++row) Tile<kLanes, 1, kColumns>(p, row, column);
}

// kBlock rows at a time: they stay in the cache while the weight passes by.
template <int kLanes, int kRows>
REIN_INLINE void Product(const DenseProduct& p, int64_t begin, int64_t end) {
  for (int64_t row = 0; row < p.rows; row += kBlock) {
    const int64_t last = std::min(p.rows, row + kBlock);
    int64_t column = begin;
    for (; column + 4 <= end; column += 4) OfRows<kLanes, kRows, 4>(p, row, last, column);
    for (; column < end; ++column) OfRows<kLanes, kRows, 1>(p, row, last, column);
  }
}

REIN_AVX512 void Avx512(const DenseProduct& p, int64_t begin, int64_t end) { Product<16, 4>(p, begin, end); }
REIN_AVX2 void Avx2(const DenseProduct& p, int64_t begin, int64_t end) { Product<8, 2>(p, begin, end); }

}  // namespace

void MultiplyColumns(const DenseProduct& product, int64_t begin, int64_t end, Simd simd) {
  switch (simd) {
    case Simd::kAvx512:
      return Avx512(product, begin, end);
    case Simd::kAvx2:
      return Avx2(product, begin, end);
    case Simd::kPlain:
      return Product<4, 1>(product, begin, end);
  }
}

at::Tensor Linear(const at::Tensor& x_TD, const at::Tensor& weight_ED, const at::Tensor& bias_E, bool records) {
  auto dense = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.is_contiguous(); };
  if (records || !dense(x_TD) || !dense(weight_ED) || (bias_E.defined() && !dense(bias_E))) {
    return at::linear(x_TD, weight_ED, bias_E);
  }
  at::Tensor y_TE = at::empty({x_TD.size(0), weight_ED.size(0)}, x_TD.options());
  const DenseProduct product{x_TD.const_data_ptr<float>(), weight_ED.const_data_ptr<float>(),
                             bias_E.defined() ? bias_E.const_data_ptr<float>() : nullptr, y_TE.mutable_data_ptr<float>(),
                             x_TD.size(0), weight_ED.size(0), x_TD.size(1)};
  const int64_t columns = 1 + kMultiplyAdds / std::max<int64_t>(1, product.rows * product.inner);
  at::parallel_for(0, product.columns, columns,
                   [&](int64_t begin, int64_t end) { MultiplyColumns(product, begin, end, Simds().front()); });
  return y_TE;
}

}  // namespace rein::nn
