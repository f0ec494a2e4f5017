// Attention over pages, in every form that this processor runs, against the formula in fp64, on fresh random input.

#include "common/nn/paged_attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace rein::nn {
namespace {

struct Case {
  PagedAttentionShape shape;
  std::vector<float> q, key, value, alibi, sinks;
  std::vector<int32_t> pages;
  std::vector<int64_t> row, position;

  Case(std::mt19937& random, PagedAttentionShape s, int64_t sequences, bool biased) : shape(s) {
    auto fill = [&](std::vector<float>& v, int64_t size) {
      std::normal_distribution<float> normal;
      v.resize(static_cast<size_t>(size));
      for (float& x : v) x = normal(random);
    };
    const int64_t pool = sequences * s.pages_per_row;
    pages.resize(static_cast<size_t>(pool));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), random);
    for (int64_t i = 0; i < sequences; ++i) {
      for (int token = 0; token < 2; ++token) {
        row.push_back(i);
        position.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(s.pages_per_row * s.page_tokens)));
      }
    }
    fill(q, Tokens() * s.heads * s.head_dim);
    fill(key, pool * s.page_tokens * s.kv_heads * s.head_dim);
    fill(value, pool * s.page_tokens * s.kv_heads * s.value_stride);
    fill(alibi, s.heads);
    fill(sinks, s.heads);
    if (biased) shape.alibi = alibi.data(), shape.sinks = sinks.data();
  }

  int64_t Tokens() const { return static_cast<int64_t>(row.size()); }

  std::vector<float> Run(Simd simd) const {
    std::vector<float> out(static_cast<size_t>(Tokens() * shape.heads * shape.value_dim), NAN);
    PagedAttentionCpu(q.data(), key.data(), value.data(), pages.data(), row.data(), position.data(), Tokens(), shape, out.data(), simd);
    return out;
  }

  std::vector<double> Wanted() const {
    std::vector<double> out;
    for (int64_t t = 0; t < Tokens(); ++t) {
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t kv_head = h / (shape.heads / shape.kv_heads), end = position[t] + 1;
        std::vector<double> sum(static_cast<size_t>(shape.value_dim), 0.0);
        double total = shape.sinks != nullptr ? std::exp(shape.sinks[h]) : 0;
        for (int64_t j = shape.window > 0 ? std::max<int64_t>(0, end - shape.window) : 0; j < end; ++j) {
          const int64_t slot = pages[row[t] * shape.pages_per_row + j / shape.page_tokens] * shape.page_tokens + j % shape.page_tokens;
          double score = 0;
          for (int64_t c = 0; c < shape.head_dim; ++c) {
            score += static_cast<double>(q[(t * shape.heads + h) * shape.head_dim + c]) * key[(slot * shape.kv_heads + kv_head) * shape.head_dim + c];
          }
          score *= shape.scale;
          if (shape.softcap > 0) score = std::tanh(score / shape.softcap) * shape.softcap;
          if (shape.alibi != nullptr) score -= shape.alibi[h] * static_cast<double>(end - 1 - j);
          total += std::exp(score);
          for (int64_t c = 0; c < shape.value_dim; ++c) {
            sum[c] += std::exp(score) * value[(slot * shape.kv_heads + kv_head) * shape.value_stride + c];
          }
        }
        for (double x : sum) out.push_back(x / total);
      }
    }
    return out;
  }
};

TEST(PagedAttentionCpuTest, IsTheFormula) {
  std::mt19937 random(std::random_device{}());
  for (Simd simd : Simds()) {
    for (int64_t head_dim : {5, 16, 20, 64, 96, 128}) {
      for (int form = 0; form < 4; ++form) {
        PagedAttentionShape s{.heads = 6, .kv_heads = form == 0 ? 6 : 2, .head_dim = head_dim, .value_dim = head_dim - (form == 1 ? 3 : 0),
                              .value_stride = head_dim, .page_tokens = form == 2 ? 3 : 16, .pages_per_row = 4};
        s.scale = 1 / std::sqrt(static_cast<double>(head_dim));
        if (form == 2) s.window = 5;
        if (form == 3) s.softcap = 2;
        const Case c(random, s, 5, form == 1);
        const std::vector<float> out = c.Run(simd);
        const std::vector<double> wanted = c.Wanted();
        for (size_t i = 0; i < wanted.size(); ++i) {
          ASSERT_NEAR(out[i], wanted[i], 2e-5) << "head_dim " << head_dim << " form " << form << " at " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace rein::nn
