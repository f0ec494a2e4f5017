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

TEST(SequenceViewTest, ASequenceMayStandAtALaterPosition) {
  SequenceView view = PackedSegments({{.length = 2, .first_position = 5}, {.length = 2, .continues = true}, {.length = 1}}, at::kCPU);
  EXPECT_TRUE(at::equal(view.position_T, at::tensor(std::vector<int64_t>{5, 6, 7, 8, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(view.context_B, at::tensor(std::vector<int64_t>{2, 4, 1}, at::kLong).to(at::kInt)))
      << "keys are those that are there";
}

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

// Continuations of one prompt, packed behind it, attend as whole sequences do; gradients of all come together.
TEST(AttentionTest, SharedPromptsMatchTheReferenceOnCopies) {
  const std::vector<Segment> segments = {{5, false}, {3, true}, {1, true}, {4, false}, {2, false}, {7, true}};
  SequenceView view = PackedSegments(segments, at::kCPU);
  EXPECT_EQ(view.position_T.size(0), 22);
  at::Tensor x[2][3];
  for (int i = 0; i < 3; ++i) {
    x[0][i] = Leaf(at::randn({22, i == 0 ? 4 : 2, 8}));
    x[1][i] = Leaf(x[0][i]);
  }
  at::Tensor out = Attention(x[0][0], x[0][1], x[0][2], view, 0, 0.3);
  std::vector<at::Tensor> wanted;
  int64_t begin = 0, prompt_begin = 0, prompt = 0;
  for (const Segment& s : segments) {
    if (!s.continues) prompt_begin = begin, prompt = s.length;
    auto whole = [&](const at::Tensor& t) {
      at::Tensor own = t.narrow(0, begin, s.length);
      return s.continues ? at::cat({t.narrow(0, prompt_begin, prompt), own}) : own;
    };
    at::Tensor q = whole(x[1][0]);
    wanted.push_back(AttentionReference(q, whole(x[1][1]), whole(x[1][2]), PackedSequences({q.size(0)}, at::kCPU), 0.3)
                         .narrow(0, q.size(0) - s.length, s.length));
    begin += s.length;
  }
  EXPECT_LE((out - at::cat(wanted)).abs().max().item<float>(), 1e-5);
  at::Tensor dy = at::randn_like(out);
  out.backward(dy);
  at::cat(wanted).backward(dy);
  for (int i = 0; i < 3; ++i) EXPECT_LE((x[0][i].grad() - x[1][i].grad()).abs().max().item<float>(), 2e-5) << i;
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
