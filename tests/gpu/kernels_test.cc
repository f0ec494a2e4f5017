// Each kernel, and each LibTorch operation that only a GPU has, against its plain reference on fresh
// random input.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "common/kernels/digest.h"
#include "common/kernels/token_logprob.h"
#include "common/kernels/token_logprob_reference.h"
#include "common/nn/attention.h"
#include "common/nn/functions.h"
#include "common/nn/head.h"
#include "common/tensor/cuda_runtime.h"
#include "common/weights/digest.h"

namespace rein::gpu {
namespace {

at::TensorOptions Bf16() { return at::TensorOptions(at::kCUDA).dtype(at::kBFloat16); }

double RelativeError(const at::Tensor& actual, const at::Tensor& wanted) {
  at::Tensor a = actual.to(at::kDouble), w = wanted.to(at::kDouble);
  return ((a - w).norm() / (w.norm() + 1e-3)).item<double>();
}

TEST(DigestGpuTest, EqualsTheHostDigest) {
  at::Tensor bytes = at::randint(256, {3 << 20}, at::TensorOptions(at::kCUDA).dtype(at::kByte));
  at::Tensor host = bytes.to(at::kCPU);
  std::vector<kernels::ByteRange> ranges = {{0, 3 << 20}, {256, 1000}, {512, 7}, {1024, 0}, {4096, 1 << 20}, {6, 30}};
  std::vector<uint64_t> digests;
  ASSERT_TRUE(kernels::DigestRanges(bytes.const_data_ptr(), ranges, tensor::CurrentStream(), &digests).ok());
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto* data = host.const_data_ptr<uint8_t>() + ranges[i].offset;
    EXPECT_EQ(digests[i], weights::Digest(data, ranges[i].size)) << i;
  }
}

TEST(TokenLogprobGpuTest, MatchesItsReference) {
  for (int64_t tokens : {1, 3, 512}) {
    const int64_t vocab = tokens == 3 ? 1001 : 49152;
    at::Tensor logits = at::randn({tokens, vocab}, at::TensorOptions(at::kCUDA)) * 5;
    at::Tensor token = at::randint(vocab, {tokens}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
    at::Tensor out = at::full({tokens}, NAN, logits.options());
    ASSERT_TRUE(kernels::TokenLogprob(logits.const_data_ptr<float>(), token.const_data_ptr<int64_t>(),
                                      out.mutable_data_ptr<float>(), tokens, vocab, tensor::CurrentStream())
                    .ok());
    EXPECT_LE((out - kernels::TokenLogprobReference(logits, token)).abs().max().item<float>(), 1e-4);
  }
}

struct Shape {
  int64_t heads, kv_heads, dim;
  std::vector<int64_t> lengths;
};

const Shape kShapes[] = {{9, 3, 64, {5, 130, 1, 257}}, {16, 8, 128, {300, 2}}, {4, 4, 96, {1}}, {4, 2, 12, {7, 9}}};

TEST(AttentionGpuTest, PackedForwardAndBackwardMatchTheReference) {
  for (const Shape& s : kShapes) {
    nn::SequenceView view = nn::PackedSequences(s.lengths, at::kCUDA);
    const int64_t tokens = view.offsets.back();
    at::Tensor leaves[2][3];
    for (int k = 0; k < 3; ++k) {
      at::Tensor x = at::randn({tokens, k == 0 ? s.heads : s.kv_heads, s.dim}, Bf16());
      leaves[0][k] = x.clone().requires_grad_(true);
      leaves[1][k] = x.to(at::kFloat).requires_grad_(true);
    }
    auto& [q, k, v] = leaves[0];
    auto& [q2, k2, v2] = leaves[1];
    at::Tensor out = nn::Attention(q, k, v, view, 0, 0.125);
    at::Tensor wanted = nn::AttentionReference(q2, k2, v2, view, 0.125);
    EXPECT_LE(RelativeError(out.detach(), wanted.detach()), 1e-2);
    at::Tensor dy = at::randn_like(out);
    out.backward(dy);
    wanted.backward(dy.to(at::kFloat));
    for (int i = 0; i < 3; ++i) EXPECT_LE(RelativeError(leaves[0][i].grad(), leaves[1][i].grad()), 2e-2) << i;
  }
}

TEST(AttentionGpuTest, PagesMatchOnePass) {
  for (const Shape& s : kShapes) {
    constexpr int64_t kPage = 16;
    nn::SequenceView whole = nn::PackedSequences(s.lengths, at::kCUDA);
    const int64_t tokens = whole.offsets.back(), rows = whole.num_sequences();
    at::Tensor q = at::randn({tokens, s.heads, s.dim}, Bf16()), k = at::randn({tokens, s.kv_heads, s.dim}, Bf16()),
               v = at::randn({tokens, s.kv_heads, s.dim}, Bf16());
    at::Tensor wanted = nn::Attention(q, k, v, whole, 0, 0.125);
    const int64_t per_row = (whole.longest + kPage - 1) / kPage;
    at::Tensor order = at::randperm(rows * per_row, at::kInt).view({rows, per_row});
    std::vector<nn::KvPages> layers(1);
    layers[0].key = at::full({rows * per_row, kPage, s.kv_heads, s.dim}, NAN, Bf16());
    layers[0].value = layers[0].key.clone();
    // All but the last token of each sequence, then the last tokens.
    for (bool last : {false, true}) {
      std::vector<int64_t> source, slots, positions, context, lengths;
      for (int64_t b = 0; b < rows; ++b) {
        const int64_t end = last ? s.lengths[b] : s.lengths[b] - 1;
        const int64_t begin = last ? s.lengths[b] - 1 : 0;
        for (int64_t i = begin; i < end; ++i) {
          source.push_back(whole.offsets[b] + i);
          positions.push_back(i);
          slots.push_back(order[b][i / kPage].item<int>() * kPage + i % kPage);
        }
        lengths.push_back(end - begin);
        context.push_back(end);
      }
      if (source.empty()) continue;
      auto longs = [](const std::vector<int64_t>& x) { return at::tensor(x, at::kLong).to(at::kCUDA); };
      nn::SequenceView view = nn::PackedSequences(lengths, at::kCUDA);
      view.position_T = longs(positions);
      nn::PageMap map{&layers, kPage, longs(slots), order.to(at::kCUDA), context};
      nn::PlanGather(map, at::kCUDA);
      view.pages = &map;
      at::Tensor index = longs(source);
      at::Tensor out = nn::Attention(q.index_select(0, index), k.index_select(0, index),
                                     v.index_select(0, index), view, 0, 0.125);
      EXPECT_LE(RelativeError(out, wanted.index_select(0, index)), 1e-2);
    }
  }
}

TEST(HeadGpuTest, MatchesLogSoftmaxInDouble) {
  at::Tensor hidden = at::randn({300, 64}, Bf16()), weight = at::randn({49152, 64}, Bf16()) * 0.2;
  at::Tensor target = at::randint(49152, {300}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  nn::Weight head{weight, at::zeros({49152, 64}, weight.options().dtype(at::kFloat))};
  at::Tensor a = hidden.clone().requires_grad_(true);
  at::Tensor b = hidden.to(at::kDouble).requires_grad_(true), w = weight.to(at::kDouble).requires_grad_(true);
  nn::TokenLogprobs out = nn::HeadLogprobs(a, head, target, 0.8);
  at::Tensor log_p = at::log_softmax(b.matmul(w.t()) / 0.8, 1);
  at::Tensor wanted = log_p.gather(1, target.unsqueeze(1)).squeeze(1);
  EXPECT_LE((out.logprob_N - wanted).abs().max().item<double>(), 0.05);
  at::Tensor dy = at::randn({300}, at::TensorOptions(at::kCUDA));
  out.logprob_N.backward(dy);
  wanted.backward(dy.to(at::kDouble));
  EXPECT_LE(RelativeError(a.grad(), b.grad()), 2e-2);
  EXPECT_LE(RelativeError(head.grad, w.grad()), 2e-2);
}

}  // namespace
}  // namespace rein::gpu
