// Decode of latent attention by the kernel, on a Hopper: against plain operations in fp32, and bit for bit against itself.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "common/kernels/latent_decode.h"
#include "common/nn/attention.h"
#include "common/tensor/cuda_graph.h"

namespace rein::gpu {
namespace {

constexpr int64_t kKeyDim = kernels::kLatentKeyDim, kValueDim = kernels::kLatentValueDim;
constexpr double kScale = 0.1147;  // of DeepSeek-V2: 1 / sqrt(192) and its yarn's share

at::TensorOptions Bf16() { return at::TensorOptions(at::kCUDA).dtype(at::kBFloat16); }
at::Tensor Longs(const std::vector<int64_t>& x) { return at::tensor(x, at::kLong).to(at::kCUDA); }

// Sequences in pages that are in any order, with NaN wherever nothing was written; the newest key of each is not there yet.
// With `share` some begin with the pages of the one before. Behind them one page that is nobody's.
struct Latents {
  Latents(std::vector<int64_t> contexts, int64_t heads, int64_t page, std::mt19937& random, bool share = true)
      : page(page), contexts(std::move(contexts)) {
    const auto rows = static_cast<int64_t>(this->contexts.size());
    const int64_t longest = *std::max_element(this->contexts.begin(), this->contexts.end()), per_row = longest / page + 1;
    pages = at::randperm(rows * per_row, at::kInt).view({rows, per_row});
    layers[0].key = at::full({rows * per_row + 1, page, 1, kKeyDim}, NAN, Bf16());
    layers[0].value = at::empty({rows * per_row + 1, page, 1, 0}, Bf16());
    std::vector<int64_t> shared, written;
    for (int64_t b = 0; b < rows; ++b) {
      const int64_t context = this->contexts[b];
      int64_t common = 0;  // pages; none with the newest key
      if (share && b > 0 && random() % 3 > 0) common = std::max<int64_t>(0, std::min(context, this->contexts[b - 1]) - 1) / page;
      if (common > 0) pages[b].narrow(0, 0, common).copy_(pages[b - 1].narrow(0, 0, common));
      shared.push_back(common * page);
      for (int64_t i = common * page; i < context - 1; ++i) written.push_back(Slot(b, i));
      newest.push_back(context > 0 ? Slot(b, context - 1) : rows * per_row * page);
    }
    at::Tensor at = Longs(written);
    Keys().index_copy_(0, at, at::randn({at.size(0), kKeyDim}, Bf16()));
    shared_B = Longs(shared).to(at::kInt);
    q = at::randn({rows, heads, kKeyDim}, Bf16()) * 2;
    key = at::randn({rows, 1, kKeyDim}, Bf16());
  }

  int64_t Slot(int64_t b, int64_t position) const {
    return pages.const_data_ptr<int32_t>()[b * pages.size(1) + position / page] * page + position % page;
  }
  at::Tensor Keys() const { return layers[0].key.view({-1, kKeyDim}); }

  // Of the sequences from `first` on, decoded by the kernel or, where it is not told of single queries, by plain operations.
  struct Step {
    nn::PageMap map;
    nn::SequenceView view;
    at::Tensor q, key;

    at::Tensor Decode() {
      nn::PlanDecode(map, view.context_B, q.size(1), 64);
      view.pages = &map;
      return nn::LatentAttention(q, key, kValueDim, view, 0, kScale);
    }
  };
  Step Of(int64_t first, int64_t rows, bool by_kernel = true) {
    Step step;
    step.map = {.layers = &layers, .page_tokens = page, .single_queries = by_kernel ? rows : 0,
                .most_chunks = rows * ((pages.size(1) * page + 255) / 256)};
    auto cut = [&](const std::vector<int64_t>& x) { return Longs({x.begin() + first, x.begin() + first + rows}); };
    step.map.slot_T = cut(newest);
    step.map.pages_BP = pages.narrow(0, first, rows).to(at::kCUDA);
    step.map.shared_B = shared_B.narrow(0, first, rows);
    step.view = nn::PackedSequences(std::vector<int64_t>(rows, 1), at::kCUDA);
    step.view.context_B = cut(contexts).to(at::kInt);
    step.view.position_T = (cut(contexts) - 1).clamp_min(0);
    step.q = q.narrow(0, first, rows);
    step.key = key.narrow(0, first, rows);
    return step;
  }
  Step All() { return Of(0, q.size(0)); }

  at::Tensor Wanted(int64_t b) const {
    if (contexts[b] == 0) return at::zeros({q.size(1), kValueDim}, Bf16().dtype(at::kFloat));
    std::vector<int64_t> slots;
    for (int64_t i = 0; i < contexts[b]; ++i) slots.push_back(Slot(b, i));
    at::Tensor k = Keys().index_select(0, Longs(slots)).to(at::kFloat);
    return at::softmax(q[b].to(at::kFloat).matmul(k.t()) * kScale, -1).matmul(k.narrow(1, 0, kValueDim));
  }

  int64_t page;
  std::vector<int64_t> contexts, newest;
  at::Tensor pages, shared_B, q, key;
  std::vector<nn::KvPages> layers = std::vector<nn::KvPages>(1);
};

class LatentAttentionGpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::LatentDecodeTakes(kKeyDim, kValueDim)) GTEST_SKIP() << "no Hopper";
  }
  // 0 to `longest` keys, a few of them none or one.
  std::vector<int64_t> Contexts(int64_t rows, int64_t longest) {
    std::vector<int64_t> contexts;
    for (int64_t b = 0; b < rows; ++b) contexts.push_back(Below(8) == 0 ? Below(2) : Below(longest + 1));
    return contexts;
  }
  int64_t Below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }

  std::mt19937 random_{std::random_device{}()};
};

TEST_F(LatentAttentionGpuTest, DecodeIsWhatPlainOperationsSayAndTheBitsOfEachSequenceAlone) {
  struct Case {
    std::vector<int64_t> contexts;
    std::vector<int64_t> heads = {16};
  };
  const std::vector<Case> cases = {{{1}, {8, 16, 128}}, {{0}}, {{17}}, {{64}}, {{511}, {8, 40}}, {{512}}, {{513}}, {{2048}}, {{2049}}, {{0, 5}},
                                   {{100, 0, 1300}}, {{12001, 700}}, {Contexts(37, 3000), {4, 8, 16, 24, 32, 128}}, {Contexts(150, 5000), {16, 40}},
                                   {Contexts(600, 300)}};
  for (const Case& c : cases) {
    for (int64_t heads : c.heads) {
      for (int64_t page : {16, 64}) {
        Latents latents(c.contexts, heads, page, random_);
        const auto rows = static_cast<int64_t>(c.contexts.size());
        const at::Tensor out = latents.All().Decode();
        ASSERT_EQ(out.sizes(), (std::vector<int64_t>{rows, heads, kValueDim}));
        for (int64_t n = 0; n < std::min<int64_t>(rows, 20); ++n) {
          const int64_t b = rows <= 20 ? n : Below(rows);
          const std::string name = std::to_string(b) + " of " + std::to_string(rows) + " with " + std::to_string(c.contexts[b]) + " keys, " +
                                   std::to_string(heads) + " heads, pages of " + std::to_string(page);
          const at::Tensor wanted = latents.Wanted(b);
          EXPECT_LE((out[b].to(at::kFloat) - wanted).norm().item<double>(), 5e-3 * wanted.norm().item<double>()) << name;
          EXPECT_TRUE(at::equal(latents.Of(b, 1).Decode()[0], out[b])) << name;
        }
      }
    }
  }
}

// A captured step reads how long its sequences are where it was captured, whatever they were then.
TEST_F(LatentAttentionGpuTest, CapturedStepsFollowTheLengths) {
  Latents latents(Contexts(200, 4000), 16, 16, random_);
  Latents::Step step = latents.All();
  const at::Tensor wanted = step.Decode(), contexts = step.view.context_B.clone();
  step.view.context_B.copy_(contexts.flip({0}).clamp_max(3000));
  at::Tensor out;
  auto graph = tensor::CaptureGraph(tensor::NewGraphPool(), [&] {
    out = step.Decode();
    out = step.Decode();  // after a launch that left its counts
  });
  ASSERT_TRUE(graph.ok()) << graph.status();
  (*graph)->Replay();
  step.view.context_B.copy_(contexts);
  out.fill_(NAN);
  (*graph)->Replay();
  EXPECT_TRUE(at::equal(out, wanted));
}

// Sequences that decode come first in a step, then those that prefill.
TEST_F(LatentAttentionGpuTest, StepsThatAlsoPrefillKeepTheBits) {
  constexpr int64_t kPrompt = 50, kDecoding = 3;
  Latents latents({700, 1, 40, kPrompt, kPrompt + 7}, 16, 16, random_, /*share=*/false);
  const at::Tensor decoded = latents.Of(0, kDecoding).Decode();
  Latents::Step step = latents.Of(0, 5);
  std::vector<int64_t> slots = latents.newest, positions = {699, 0, 39}, lengths = {1, 1, 1, kPrompt, kPrompt};
  slots.resize(kDecoding);
  for (int64_t b = kDecoding; b < 5; ++b) {
    for (int64_t i = latents.contexts[b] - kPrompt; i < latents.contexts[b]; ++i) slots.push_back(latents.Slot(b, i)), positions.push_back(i);
  }
  const at::Tensor contexts = step.view.context_B;
  step.view = nn::PackedSequences(lengths, at::kCUDA);
  step.view.context_B = contexts;
  step.view.position_T = Longs(positions);
  step.map.slot_T = Longs(slots);
  const int64_t tokens = step.view.offsets.back();
  step.q = at::cat({latents.q.narrow(0, 0, kDecoding), at::randn({tokens - kDecoding, 16, kKeyDim}, Bf16()) * 2}, 0);
  step.key = at::cat({latents.key.narrow(0, 0, kDecoding), at::randn({tokens - kDecoding, 1, kKeyDim}, Bf16())}, 0);
  step.map.single_queries = 0;
  const at::Tensor plain = step.Decode();
  step.map.single_queries = kDecoding;
  const at::Tensor mixed = step.Decode();
  EXPECT_TRUE(at::equal(mixed.narrow(0, 0, kDecoding), decoded));
  EXPECT_FALSE(at::equal(plain.narrow(0, 0, kDecoding), decoded));  // so that it is the kernel that is looked at
  EXPECT_TRUE(at::equal(mixed.slice(0, kDecoding), plain.slice(0, kDecoding)));
}

}  // namespace
}  // namespace rein::gpu
