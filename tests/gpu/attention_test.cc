// Attention on the GPU: against the plain reference, and bit for bit against itself under every way in which
// keys can be cached and queries cut.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <vector>

#include "common/kernels/attention_gradient.h"
#include "common/kernels/attention_gradient_hopper.h"
#include "common/nn/attention.h"
#include "common/nn/fp8.h"
#include "common/nn/query_key_value.h"
#include "common/tensor/cuda_runtime.h"

namespace rein::gpu {
namespace {

at::TensorOptions Bf16() { return at::TensorOptions(at::kCUDA).dtype(at::kBFloat16); }
at::Tensor Longs(const std::vector<int64_t>& x) { return at::tensor(x, at::kLong).to(at::kCUDA); }

double RelativeError(const at::Tensor& actual, const at::Tensor& wanted) {
  at::Tensor a = actual.to(at::kDouble), w = wanted.to(at::kDouble);
  return ((a - w).norm() / (w.norm() + 1e-3)).item<double>();
}

struct Shape {
  int64_t heads, kv_heads, dim;
  std::vector<int64_t> lengths;
};

const Shape kShapes[] = {{9, 3, 64, {5, 130, 1, 257}},       {16, 8, 128, {300, 2, 1000}},
                         {4, 4, 96, {1, 65}},                {4, 2, 12, {7, 9}},
                         {14, 2, 64, {700, 64, 63, 256}},    {32, 8, 128, {513, 255}},
                         {8, 1, 128, {400}},                 {8, 4, 256, {300, 20}},
                         {4, 2, 32, {18, 300, 1, 70}},       {48, 1, 64, {3, 600, 1}}};

// What families do to scores, each alone and some together; windows shorter than a tile, than a chunk and longer.
struct Rule {
  const char* name;
  int64_t window = 0;
  double softcap = 0;
  bool alibi = false, sinks = false;

  // Sinks have values of bf16 and a gradient of their own.
  nn::AttentionRule Make(int64_t heads) const {
    nn::AttentionRule rule(0.125);
    rule.window = window;
    rule.softcap = softcap;
    if (alibi) rule.alibi_H = at::rand({heads}, at::TensorOptions(at::kCUDA)) * 0.2;
    if (sinks) rule.sinks_H = {at::randn({heads}, Bf16()), at::zeros({heads}, at::TensorOptions(at::kCUDA))};
    return rule;
  }
};

const Rule kRules[] = {{"plain"}, {"window 5", 5}, {"window 100", 100}, {"window 300", 300}, {"cap", 0, 4.0},
                       {"cap and window", 70, 20.0}, {"alibi", 0, 0, true}, {"sinks", 0, 0, false, true},
                       {"sinks and window", 128, 0, false, true}};

struct Case {
  Shape shape;
  Rule rule;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const Shape& shape : kShapes) {
    for (const Rule& rule : kRules) cases.push_back({shape, rule});
  }
  return cases;
}

TEST(AttentionGpuTest, PackedForwardAndBackwardMatchTheReference) {
  for (auto [s, kind] : Cases()) {
    const nn::AttentionRule rule = kind.Make(s.heads);
    nn::AttentionRule wide = rule;
    if (kind.sinks) wide.sinks_H.grad = at::zeros_like(rule.sinks_H.grad);
    const std::string name = std::string(kind.name) + ", " + std::to_string(s.dim);
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
    at::Tensor out = nn::Attention(q, k, v, view, 0, rule);
    at::Tensor wanted = nn::AttentionReference(q2, k2, v2, view, wide);
    EXPECT_LE(RelativeError(out.detach(), wanted.detach()), 1e-2) << name;
    at::Tensor dy = at::randn_like(out);
    out.backward(dy);
    wanted.backward(dy.to(at::kFloat));
    for (int i = 0; i < 3; ++i) {
      EXPECT_LE(RelativeError(leaves[0][i].grad(), leaves[1][i].grad()), 2e-2) << name << " " << i;
    }
    if (kind.sinks) {
      EXPECT_LE(RelativeError(rule.sinks_H.grad, wide.sinks_H.grad), 3e-2) << name;
    }
  }
}

// As latent attention expands them.
TEST(AttentionGpuTest, KeysAndValuesOfDifferentWidthsMatchTheReference) {
  for (auto [key_dim, value_dim] : {std::pair{192, 128}, {24, 16}, {128, 192}}) {
    nn::SequenceView view = nn::PackedSequences({300, 1, 77}, at::kCUDA);
    at::Tensor q = at::randn({378, 8, key_dim}, Bf16()), k = at::randn({378, 8, key_dim}, Bf16()),
               v = at::randn({378, 8, value_dim}, Bf16()), dy = at::randn({378, 8, value_dim}, Bf16());
    std::vector<at::Tensor> first;
    for (int run = 0; run < 3; ++run) {  // twice by kernels, then the reference
      std::vector<at::Tensor> leaves;
      for (const at::Tensor& x : {q, k, v}) leaves.push_back(x.to(run < 2 ? at::kBFloat16 : at::kFloat).clone().requires_grad_(true));
      at::Tensor out = run < 2 ? nn::Attention(leaves[0], leaves[1], leaves[2], view, 0, 0.1)
                               : nn::AttentionReference(leaves[0], leaves[1], leaves[2], view, 0.1);
      out.backward(run < 2 ? dy : dy.to(at::kFloat));
      std::vector<at::Tensor> results = {out.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
      if (run == 0) first = results;
      for (size_t i = 0; i < results.size(); ++i) {
        ASSERT_EQ(results[i].sizes(), first[i].sizes());
        if (run == 1) {
          EXPECT_TRUE(at::equal(results[i], first[i])) << key_dim << " " << i;
        }
        EXPECT_LE(RelativeError(first[i], results[i]), 2e-2) << key_dim << " " << i;
      }
    }
  }
}

// A prompt packed once for its continuations: the bits of copies in the forward pass, their gradients but for
// rounding, and the same ones twice.
TEST(AttentionGpuTest, SharedPromptsMatchCopies) {
  std::mt19937 random(std::random_device{}());
  for (auto [s, kind] : Cases()) {
    if (s.dim == 12) continue;
    const std::string name = std::string(kind.name) + ", " + std::to_string(s.dim);
    std::vector<nn::Segment> segments;
    for (int group = 0; group < 4; ++group) {
      segments.push_back({.length = 1 + static_cast<int64_t>(random() % 300)});
      for (uint32_t n = group == 2 ? 0 : random() % 20; n > 0; --n) {
        segments.push_back({.length = 1 + static_cast<int64_t>(random() % 400), .continues = true});
      }
    }
    segments.push_back({.length = 7});
    segments.push_back({.length = 11, .continues = true});
    nn::SequenceView view = nn::PackedSegments(segments, at::kCUDA);
    const nn::SharedPrompts& shared = *view.shared;
    const int64_t tokens = view.offsets.back();
    at::Tensor dy = at::randn({tokens, s.heads, s.dim}, Bf16());
    at::Tensor leaves[3][3], out[3];
    const nn::AttentionRule rule = kind.Make(s.heads);
    nn::AttentionRule rules[3] = {rule, rule, rule};
    for (int i = 0; kind.sinks && i < 3; ++i) rules[i].sinks_H.grad = at::zeros_like(rule.sinks_H.grad);
    for (int i = 0; i < 3; ++i) {
      leaves[0][i] = at::randn({tokens, i == 0 ? s.heads : s.kv_heads, s.dim}, Bf16()).requires_grad_(true);
      leaves[1][i] = leaves[0][i].detach().clone().requires_grad_(true);
      leaves[2][i] = leaves[0][i].detach().to(at::kFloat).requires_grad_(true);
    }
    for (int run = 0; run < 3; ++run) {
      auto& [q, k, v] = leaves[run];
      if (run < 2) {
        out[run] = nn::Attention(q, k, v, view, 0, rules[run]);
      } else {
        auto copied = [&](const at::Tensor& x) { return x.index_select(0, shared.source_E); };
        out[run] = nn::AttentionReference(copied(q), copied(k), copied(v), *shared.copies, rules[run]).index_select(0, shared.own_T);
      }
      out[run].backward(run < 2 ? dy : dy.to(at::kFloat));
    }
    auto bits = [&](const at::Tensor& x) { return x.detach().index_select(0, shared.source_E); };
    at::Tensor of_copies = nn::Attention(bits(leaves[0][0]), bits(leaves[0][1]), bits(leaves[0][2]), *shared.copies, 0, rule)
                               .index_select(0, shared.own_T);
    EXPECT_TRUE(at::equal(out[0].detach(), of_copies)) << name;
    EXPECT_LE(RelativeError(out[0].detach(), out[2].detach()), 1e-2) << name;
    for (int i = 0; i < 3; ++i) {
      EXPECT_LE(RelativeError(leaves[0][i].grad(), leaves[2][i].grad()), 2e-2) << name << " " << i;
      EXPECT_TRUE(at::equal(leaves[0][i].grad(), leaves[1][i].grad())) << name << " " << i;
    }
    if (!kind.sinks) continue;
    EXPECT_LE(RelativeError(rules[0].sinks_H.grad, rules[2].sinks_H.grad), 3e-2) << name;
    EXPECT_TRUE(at::equal(rules[0].sinks_H.grad, rules[1].sinks_H.grad)) << name;
  }
}

// Blocks go from one short sequence to the next: what one warp is done with, another may still wait for or read. Prompts with
// and without continuations, so that queries are few and keys are many.
TEST(AttentionGpuTest, ManyShortSequencesGiveTheirOwnBitsEachTime) {
  std::mt19937 random(std::random_device{}());
  for (auto [dim, value_dim] : {std::pair<int64_t, int64_t>{64, 64}, {128, 128}, {192, 128}}) {
    for (bool shared : {false, true}) {
      std::vector<nn::Segment> segments;
      for (int n = 0; n < 100; ++n) {
        segments.push_back({.length = 1 + static_cast<int64_t>(random() % 400), .continues = shared && n % 10 != 0});
      }
      const nn::SequenceView view = nn::PackedSegments(segments, at::kCUDA);
      const int64_t tokens = view.offsets.back();
      const at::Tensor q = at::randn({tokens, 8, dim}, Bf16()), k = at::randn({tokens, 4, dim}, Bf16()), v = at::randn({tokens, 4, value_dim}, Bf16());
      const at::Tensor first = nn::Attention(q, k, v, view, 0, {});
      for (int run = 0; run < 200; ++run) ASSERT_TRUE(at::equal(nn::Attention(q, k, v, view, 0, {}), first)) << dim << ", run " << run;
      for (size_t s = 0; s < segments.size() && !shared; s += 7) {
        const int64_t begin = view.offsets[s], length = view.offsets[s + 1] - begin;
        const nn::SequenceView one = nn::PackedSegments({segments[s]}, at::kCUDA);
        auto own = [&](const at::Tensor& x) { return x.narrow(0, begin, length); };
        EXPECT_TRUE(at::equal(nn::Attention(own(q), own(k), own(v), one, 0, {}), own(first))) << dim << ", " << length << " tokens";
      }
    }
  }
}

TEST(AttentionGpuTest, GradientsHaveTheSameBitsTwice) {
  for (auto [s, kind] : Cases()) {
    if (s.dim == 12) continue;  // not by kernels
    const nn::AttentionRule rule = kind.Make(s.heads);
    nn::SequenceView view = nn::PackedSequences(s.lengths, at::kCUDA);
    const int64_t tokens = view.offsets.back();
    at::Tensor q = at::randn({tokens, s.heads, s.dim}, Bf16()), k = at::randn({tokens, s.kv_heads, s.dim}, Bf16()),
               v = at::randn({tokens, s.kv_heads, s.dim}, Bf16()), dy = at::randn({tokens, s.heads, s.dim}, Bf16());
    std::vector<at::Tensor> first;
    for (int run = 0; run < 3; ++run) {
      std::vector<at::Tensor> leaves;
      for (const at::Tensor& x : {q, k, v}) leaves.push_back(x.clone().requires_grad_(true));
      nn::Attention(leaves[0], leaves[1], leaves[2], view, 0, rule).backward(dy);
      for (int i = 0; i < 3; ++i) {
        if (run == 0) first.push_back(leaves[i].grad());
        EXPECT_TRUE(at::equal(leaves[i].grad(), first[i])) << kind.name << ", " << s.dim << " " << i;
      }
    }
  }
}

// Ranges of packed tokens on the device: some causal, or each of queries over another one of keys.
struct Ranges {
  explicit Ranges(const std::vector<std::array<int64_t, 4>>& ranges, bool causal) : causal(causal) {  // begin and length, of queries and of keys
    std::vector<int64_t> all[4];
    for (const auto& range : ranges) {
      for (int i = 0; i < 4; ++i) all[i].push_back(range[i]);
      longest_query = std::max(longest_query, range[1]);
      longest_key = std::max(longest_key, range[3]);
      tokens = std::max({tokens, range[0] + range[1], range[2] + range[3]});
    }
    for (int i = 0; i < 4; ++i) of[i] = Longs(all[i]).to(at::kInt);
  }
  kernels::Ragged Of(int i) const { return {of[i].const_data_ptr<int32_t>(), of[i + 1].const_data_ptr<int32_t>()}; }

  bool causal;
  int64_t tokens = 0, longest_query = 0, longest_key = 0;
  at::Tensor of[4];
};

// The kernels for Hopper beside those for any GPU, which compute the same products: where no sums are split among blocks the
// same bits, but for what a window leaves out and for a cap.
TEST(AttentionGpuTest, GradientsOnAHopperAreThoseOfThePortableKernels) {
  std::mt19937 random(std::random_device{}());
  auto upto = [&](int64_t most) { return 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(most)); };
  for (const Rule& kind : kRules) {
    for (auto [heads, kv_heads, dim, sequences, most] :
         {std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>{16, 8, 128, 40, 500}, {14, 2, 64, 60, 700}, {4, 4, 128, 2, 3000}, {6, 1, 64, 1, 5000}, {8, 2, 128, 3, 60}}) {
      for (bool causal : {true, false}) {
        if (!causal && (kind.window > 0 || kind.alibi)) continue;
        std::vector<std::array<int64_t, 4>> list;
        int64_t tokens = 0;
        for (int64_t n = 0; n < sequences; ++n) {
          const int64_t keys = upto(most), queries = causal ? keys : upto(2 * most) - 1;
          list.push_back({causal ? tokens : tokens + keys, queries, tokens, keys});
          tokens += causal ? keys : keys + queries;
        }
        const Ranges ranges(list, causal);
        const nn::AttentionRule rule = kind.Make(heads);
        auto like = [&](int64_t count) { return at::randn({tokens, count, dim}, Bf16()); };
        at::Tensor q = like(heads), k = like(kv_heads), v = like(kv_heads), out = like(heads), dout = like(heads);
        at::Tensor lse = at::rand({tokens, heads}, Bf16().dtype(at::kFloat)) + 6, delta = at::empty_like(lse);
        std::vector<at::Tensor> held, of[3];
        auto allocate = [&](int64_t bytes) {
          held.push_back(at::full({bytes}, 255, Bf16().dtype(at::kByte)));
          return held.back().mutable_data_ptr();
        };
        kernels::AttentionBackward run;
        run.q = q.const_data_ptr(), run.k = k.const_data_ptr(), run.v = v.const_data_ptr(), run.out = out.const_data_ptr();
        run.dout = dout.const_data_ptr(), run.lse = lse.const_data_ptr<float>();
        run.query = ranges.Of(0), run.key = ranges.Of(2), run.causal = causal;
        run.rule.window = static_cast<int32_t>(kind.window), run.rule.softcap = static_cast<float>(kind.softcap);
        if (kind.alibi) run.rule.alibi = rule.alibi_H.const_data_ptr<float>();
        run.q_stride = heads * dim, run.k_stride = run.v_stride = kv_heads * dim;
        run.tokens = tokens, run.sequences = sequences, run.longest_query = ranges.longest_query, run.longest_key = ranges.longest_key;
        run.heads = heads, run.kv_heads = kv_heads, run.head_dim = run.value_dim = dim, run.scale = 0.125;
        if (!kernels::HopperBackwardTakes(run)) GTEST_SKIP() << "no Hopper";
        ASSERT_TRUE(kernels::SumOfGradients(run, delta.mutable_data_ptr<float>(), tensor::CurrentStream()).ok());
        EXPECT_LE(RelativeError(delta, (out.to(at::kFloat) * dout.to(at::kFloat)).sum(2)), 1e-5);
        for (int turn = 0; turn < 3; ++turn) {  // the portable ones, and the others twice
          for (const at::Tensor& x : {q, k, v}) of[turn].push_back(at::zeros_like(x));
          run.dq = of[turn][0].mutable_data_ptr(), run.dk = of[turn][1].mutable_data_ptr(), run.dv = of[turn][2].mutable_data_ptr();
          const absl::Status status =
              turn == 0 ? kernels::AttendBackwardByWarps(run, delta.const_data_ptr<float>(), tensor::CurrentStream())
                        : kernels::AttendBackwardHopper(run, delta.const_data_ptr<float>(), allocate, tensor::CurrentStream());
          ASSERT_TRUE(status.ok()) << status.ToString();
        }
        const std::string name = std::string(kind.name) + ", " + std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads of " +
                                 std::to_string(dim) + (causal ? "" : ", whole");
        for (int i = 0; i < 3; ++i) {
          EXPECT_LE(RelativeError(of[1][i], of[0][i]), 2e-3) << name << ", gradient " << i;
          EXPECT_TRUE(at::equal(of[1][i], of[2][i])) << name << ", gradient " << i;
          const bool split = i > 0 && sequences < 40, same = kind.window == 0 && kind.softcap == 0 && !split;
          EXPECT_TRUE(!same || at::equal(of[1][i], of[0][i])) << name << ", gradient " << i;
        }
      }
    }
  }
}

// Sequences in pages, in any order, with NaN wherever nothing was written.
struct Pages {
  static constexpr int64_t kPage = 16;

  Pages(const Shape& s, const nn::SequenceView& whole, bool fp8 = false) : per_row((whole.longest + kPage - 1) / kPage) {
    const int64_t rows = whole.num_sequences();
    order = at::randperm(rows * per_row, at::kInt).view({rows, per_row});
    layers[0].key = at::full({rows * per_row, kPage, s.kv_heads, s.dim}, NAN, Bf16());
    if (fp8) layers[0].key = layers[0].key.to(at::kFloat8_e4m3fn);
    layers[0].value = layers[0].key.clone();
  }

  // Attends the queries [begin[b], end[b]) of each sequence; those with one query come first.
  at::Tensor Attend(const std::array<at::Tensor, 3>& qkv, const nn::SequenceView& whole,
                    const std::vector<int64_t>& begin, const std::vector<int64_t>& end,
                    at::Tensor* where, const nn::AttentionRule& rule) {
    std::vector<int64_t> rows, source, slots, positions, lengths, contexts;
    for (bool single : {true, false}) {
      for (int64_t b = 0; b < whole.num_sequences(); ++b) {
        if (end[b] > begin[b] && (end[b] - begin[b] == 1) == single) rows.push_back(b);
      }
    }
    nn::PageMap map{.layers = &layers, .page_tokens = kPage};
    for (int64_t b : rows) {
      for (int64_t i = begin[b]; i < end[b]; ++i) {
        source.push_back(whole.offsets[b] + i);
        positions.push_back(i);
        slots.push_back(order[b][i / kPage].item<int>() * kPage + i % kPage);
      }
      lengths.push_back(end[b] - begin[b]);
      contexts.push_back(end[b]);
      map.single_queries += end[b] - begin[b] == 1;
    }
    nn::SequenceView view = nn::PackedSequences(lengths, at::kCUDA);
    view.position_T = Longs(positions);
    view.context_B = Longs(contexts).to(at::kInt);
    map.slot_T = Longs(slots);
    map.pages_BP = order.to(at::kCUDA).index_select(0, Longs(rows));
    map.most_chunks = map.single_queries * ((whole.longest + 255) / 256);
    const at::Tensor& q = qkv[0];
    nn::PlanDecode(map, view.context_B, q.size(1), q.size(2));
    view.pages = &map;
    *where = Longs(source);
    return nn::Attention(q.index_select(0, *where), qkv[1].index_select(0, *where),
                         qkv[2].index_select(0, *where), view, 0, rule);
  }

  int64_t per_row;
  at::Tensor order;
  std::vector<nn::KvPages> layers = std::vector<nn::KvPages>(1);
};

TEST(AttentionGpuTest, PagesChunksAndDecodingGiveTheBitsOfOnePass) {
  for (auto [s, kind] : Cases()) {
    if (s.dim == 12) continue;  // not by kernels
    const nn::AttentionRule rule = kind.Make(s.heads);
    nn::SequenceView whole = nn::PackedSequences(s.lengths, at::kCUDA);
    const int64_t tokens = whole.offsets.back(), rows = whole.num_sequences();
    std::array<at::Tensor, 3> qkv = {at::randn({tokens, s.heads, s.dim}, Bf16()) * 3,
                                     at::randn({tokens, s.kv_heads, s.dim}, Bf16()),
                                     at::randn({tokens, s.kv_heads, s.dim}, Bf16())};
    auto attended = [&](const std::array<at::Tensor, 3>& in) { return nn::Attention(in[0], in[1], in[2], whole, 0, rule); };
    // Pages of fp8 give the bits of what is rounded to it.
    const at::Tensor in_full = attended(qkv), rounded = attended({qkv[0], nn::RoundToFp8(qkv[1]), nn::RoundToFp8(qkv[2])});
    EXPECT_FALSE(at::equal(in_full, rounded));
    for (auto [chunk, fp8] : {std::pair{1000, false}, {100, false}, {17, false}, {1000, true}, {64, true}, {17, true}}) {
      if (fp8 && !rule.plain()) continue;
      const at::Tensor& wanted = fp8 ? rounded : in_full;
      Pages pages(s, whole, fp8);
      at::Tensor where;
      std::vector<int64_t> done(rows, 0);
      while (true) {  // chunks, and single tokens near the end
        std::vector<int64_t> end = done;
        bool any = false;
        for (int64_t b = 0; b < rows; ++b) {
          const int64_t left = s.lengths[b] - done[b];
          end[b] += std::min<int64_t>(left, left <= 5 ? 1 : std::min<int64_t>(chunk, left - 5));
          any = any || left > 0;
        }
        if (!any) break;
        at::Tensor out = pages.Attend(qkv, whole, done, end, &where, rule);
        EXPECT_TRUE(at::equal(out, wanted.index_select(0, where)))
            << kind.name << ", " << s.dim << ", chunk " << chunk << (fp8 ? ", fp8" : "") << ", differs by "
            << (out - wanted.index_select(0, where)).abs().max().item<float>();
        done = end;
      }
    }
    // A sequence alone.
    const int64_t last = rows - 1, begin = whole.offsets[last];
    auto cut = [&](const at::Tensor& x) { return x.narrow(0, begin, s.lengths[last]); };
    EXPECT_TRUE(at::equal(nn::Attention(cut(qkv[0]), cut(qkv[1]), cut(qkv[2]),
                                        nn::PackedSequences({s.lengths[last]}, at::kCUDA), 0, rule),
                          cut(in_full)));
  }
}

// Rows of pages whose beginnings are the same, as siblings of a prompt have them: read together or one by one,
// the same bits.
TEST(AttentionGpuTest, SiblingsThatShareChunksGetTheBitsOfEachAlone) {
  std::mt19937 random(std::random_device{}());
  auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  for (auto [heads, kv_heads, dim] : {std::tuple{16, 8, 128}, {9, 3, 64}, {14, 2, 64}, {8, 1, 128},
                                      {4, 4, 96}, {16, 1, 64}, {8, 4, 256}, {4, 2, 32}, {48, 1, 64}}) {
    for (auto [rows, kind] : std::vector<std::pair<int64_t, Rule>>{{1, kRules[0]}, {37, kRules[0]}, {600, kRules[0]}, {37, kRules[3]},
                                                                   {300, kRules[5]}, {37, kRules[6]}, {300, kRules[8]}}) {
      const nn::AttentionRule rule = kind.Make(heads);
      const int64_t per_row = 80, longest = per_row * 16;
      std::vector<int64_t> contexts, shared;
      at::Tensor pages = at::randperm(rows * per_row, at::kInt).view({rows, per_row});
      for (int64_t b = 0; b < rows; ++b) {
        contexts.push_back(below(10) == 0 ? below(2) : 1 + below(longest));
        // A new prompt now and then; else some of the row before, from nothing to all of it.
        const int64_t common = b == 0 || below(6) == 0 ? 0 : below(per_row + 1);
        if (common > 0) pages[b].narrow(0, 0, common).copy_(pages[b - 1].narrow(0, 0, common));
        shared.push_back(common * 16);
      }
      std::vector<nn::KvPages> layers(1);
      layers[0].key = nn::RoundToFp8(at::randn({rows * per_row, 16, kv_heads, dim}, Bf16()));
      layers[0].value = nn::RoundToFp8(at::randn({rows * per_row, 16, kv_heads, dim}, Bf16()) * 0.02);  // some below the normal numbers
      std::vector<nn::KvPages> narrow = {{nn::ToFp8(layers[0].key), nn::ToFp8(layers[0].value)}};
      at::Tensor q = at::randn({rows, heads, dim}, Bf16()) * 3;
      nn::SequenceView view = nn::PackedSequences(std::vector<int64_t>(rows, 1), at::kCUDA);
      view.context_B = Longs(contexts).to(at::kInt);
      std::vector<at::Tensor> out;
      for (auto [together, fp8] : {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
        if (fp8 && !rule.plain()) continue;
        nn::PageMap map{.layers = fp8 ? &narrow : &layers, .page_tokens = 16, .single_queries = rows,
                        .most_chunks = rows * (longest / 256)};
        map.pages_BP = pages.to(at::kCUDA);
        if (together) map.shared_B = Longs(shared).to(at::kInt);
        nn::PlanDecode(map, view.context_B, heads, dim);
        view.pages = &map;
        out.push_back(nn::Attention(q, {}, {}, view, 0, rule));
      }
      for (size_t i = 1; i < out.size(); ++i) {
        EXPECT_TRUE(at::equal(out[0], out[i])) << kind.name << ", " << i << ": " << rows << " rows, " << heads << "/" << kv_heads << " heads of " << dim;
      }
      const bool any_keys = *std::max_element(contexts.begin(), contexts.end()) > 0;
      EXPECT_EQ(out[0].abs().max().item<float>() > 0, any_keys);
    }
  }
}

TEST(AttentionGpuTest, KeysAndValuesAreRoundedOnTheWayIntoPagesOfFp8) {
  for (auto [heads, kv_heads, dim] : {std::tuple{4, 2, 32}, {6, 2, 64}, {4, 4, 96}, {8, 2, 128}, {4, 1, 256}}) {
    constexpr int64_t kTokens = 61, kPage = 16;
    at::Tensor qkv = at::randn({kTokens, (heads + 2 * kv_heads) * dim}, Bf16()) * at::rand({kTokens, 1}, Bf16()) * 400;  // also beyond 448
    nn::SequenceView view = nn::PackedSequences({kTokens}, at::kCUDA);
    const at::Tensor angle = at::rand({kTokens, dim / 2}, Bf16().dtype(at::kFloat)) * 6;
    const nn::Rotary rotary{at::cos(angle), at::sin(angle)};
    const nn::HeadShape shape{.heads = heads, .kv_heads = kv_heads, .head_dim = dim, .kv_fp8 = true};
    for (const nn::Weight& norm : {nn::Weight{}, nn::Weight{at::rand({dim}, Bf16()), {}}}) {
      const nn::QueryKeyValue packed = nn::SplitQueryKeyValue(qkv, shape, norm, norm, 1e-6, rotary, view, 0);
      EXPECT_EQ(packed.v_TKC.abs().max().item<float>(), 448);
      std::vector<nn::KvPages> layers(1);
      layers[0].key = at::zeros({5, kPage, kv_heads, dim}, Bf16()).to(at::kFloat8_e4m3fn);
      layers[0].value = layers[0].key.clone();
      nn::PageMap map{.layers = &layers, .page_tokens = kPage};
      map.slot_T = at::randperm(5 * kPage, at::kLong).to(at::kCUDA).narrow(0, 0, kTokens);
      view.pages = &map;
      const nn::QueryKeyValue paged = nn::SplitQueryKeyValue(qkv, shape, norm, norm, 1e-6, rotary, view, 0);
      view.pages = nullptr;
      EXPECT_FALSE(paged.k_TKC.defined());
      EXPECT_TRUE(at::equal(paged.q_THC, packed.q_THC));
      auto rows = [&](const at::Tensor& pages) {
        return pages.to(at::kBFloat16).view({-1, kv_heads, dim}).index_select(0, map.slot_T);
      };
      EXPECT_TRUE(at::equal(rows(layers[0].key), packed.k_TKC)) << dim;
      EXPECT_TRUE(at::equal(rows(layers[0].value), packed.v_TKC)) << dim;
    }
  }
}

TEST(AttentionGpuTest, PagesMatchTheReferenceWhereNoKernelDoes) {
  const Shape s = {4, 2, 12, {7, 9}};
  nn::SequenceView whole = nn::PackedSequences(s.lengths, at::kCUDA);
  std::array<at::Tensor, 3> qkv = {at::randn({16, 4, 12}, Bf16()), at::randn({16, 2, 12}, Bf16()),
                                   at::randn({16, 2, 12}, Bf16())};
  at::Tensor wanted = nn::AttentionReference(qkv[0], qkv[1], qkv[2], whole, 0.125), where;
  Pages pages(s, whole);
  at::Tensor out = pages.Attend(qkv, whole, {0, 0}, {7, 9}, &where, 0.125);
  EXPECT_LE(RelativeError(out, wanted.index_select(0, where)), 1e-2);
}

}  // namespace
}  // namespace rein::gpu
