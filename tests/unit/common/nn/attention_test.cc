// Packed attention, its backward, and attention over pages against the plain reference.

#include "common/nn/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace rein::nn {
namespace {

struct Shape {
  int64_t heads, kv_heads, dim;
  std::vector<int64_t> lengths;
};

const Shape kShapes[] = {{4, 4, 8, {5}}, {6, 2, 16, {1, 9, 3}}, {4, 1, 32, {17, 33, 1, 2}}, {3, 3, 6, {4, 4}}};

at::Tensor Leaf(const at::Tensor& x) { return x.detach().clone().requires_grad_(true); }

TEST(AttentionTest, PackedForwardAndBackwardMatchTheReference) {
  for (const Shape& s : kShapes) {
    SequenceView view = PackedSequences(s.lengths, at::kCPU);
    const int64_t tokens = view.offsets.back();
    at::Tensor q = at::randn({tokens, s.heads, s.dim}), k = at::randn({tokens, s.kv_heads, s.dim}),
               v = at::randn({tokens, s.kv_heads, s.dim});
    at::Tensor q1 = Leaf(q), k1 = Leaf(k), v1 = Leaf(v), q2 = Leaf(q), k2 = Leaf(k), v2 = Leaf(v);
    at::Tensor out = Attention(q1, k1, v1, view, 0, 0.3);
    at::Tensor wanted = AttentionReference(q2, k2, v2, view, 0.3);
    EXPECT_LE((out - wanted).abs().max().item<float>(), 1e-5) << s.heads;
    at::Tensor dy = at::randn_like(wanted);
    out.backward(dy);
    wanted.backward(dy);
    EXPECT_LE((q1.grad() - q2.grad()).abs().max().item<float>(), 2e-5);
    EXPECT_LE((k1.grad() - k2.grad()).abs().max().item<float>(), 2e-5);
    EXPECT_LE((v1.grad() - v2.grad()).abs().max().item<float>(), 2e-5);
  }
}

// Feeds the sequences in random chunks through pages that are scattered over the pool.
TEST(AttentionTest, PagesInRandomChunksMatchOnePass) {
  for (const Shape& s : kShapes) {
    for (int64_t page_tokens : {1, 4, 7}) {
      SequenceView whole = PackedSequences(s.lengths, at::kCPU);
      const int64_t tokens = whole.offsets.back(), rows = whole.num_sequences();
      at::Tensor q = at::randn({tokens, s.heads, s.dim}), k = at::randn({tokens, s.kv_heads, s.dim}),
                 v = at::randn({tokens, s.kv_heads, s.dim});
      at::Tensor wanted = AttentionReference(q, k, v, whole, 0.2);
      const int64_t per_row = (whole.longest + page_tokens - 1) / page_tokens;
      at::Tensor page_order = at::randperm(rows * per_row, at::kInt).view({rows, per_row});
      std::vector<KvPages> layers(1);
      layers[0].key = at::randn({rows * per_row, page_tokens, s.kv_heads, s.dim});
      layers[0].value = at::randn_like(layers[0].key);
      std::vector<int64_t> done(rows, 0);
      for (int64_t left = tokens; left > 0;) {
        std::vector<int64_t> source, slots, positions, lengths;
        for (int64_t b = 0; b < rows; ++b) {
          const int64_t remaining = s.lengths[b] - done[b];
          const int64_t n = std::min(remaining, at::randint(1, 6, {1}, at::kLong).item<int64_t>());
          for (int64_t i = done[b]; i < done[b] + n; ++i) {
            source.push_back(whole.offsets[b] + i);
            positions.push_back(i);
            slots.push_back(page_order[b][i / page_tokens].item<int>() * page_tokens + i % page_tokens);
          }
          lengths.push_back(n);
          done[b] += n;
          left -= n;
        }
        SequenceView view = PackedSequences(lengths, at::kCPU);
        view.position_T = at::tensor(positions, at::kLong);
        PageMap map{&layers, page_tokens, at::tensor(slots, at::kLong), page_order.contiguous()};
        view.pages = &map;
        at::Tensor index = at::tensor(source, at::kLong);
        at::Tensor out = Attention(q.index_select(0, index), k.index_select(0, index),
                                   v.index_select(0, index), view, 0, 0.2);
        EXPECT_LE((out - wanted.index_select(0, index)).abs().max().item<float>(), 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace rein::nn
