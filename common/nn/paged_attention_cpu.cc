#include "common/nn/paged_attention_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace rein::nn {
namespace {

constexpr int64_t kMostLanes = 16;

// One query head of one token.
struct Head {
  const float* q;
  const float* key;  // the first page's, of this head
  const float* value;
  const int32_t* pages;
  int64_t begin, end;  // positions of the keys; the query stands at end - 1
  int64_t head;
  float* score;  // room for end - begin, and a vector more
  float* out;
};

REIN_INLINE const float* Of(const float* pool, const Head& h, const PagedAttentionShape& s, int64_t j, int64_t stride) {
  const int64_t slot = h.pages[j / s.page_tokens] * s.page_tokens + j % s.page_tokens;
  return pool + slot * s.kv_heads * stride;
}

// score[i] = q . key at begin + i, for kLanes keys; those from `end` on are another's.
template <int kLanes>
REIN_INLINE void Scores(const Head& h, const PagedAttentionShape& s, int64_t begin, float* score) {
  using F = Floats<kLanes>;
  const float* key[kLanes];
  for (int i = 0; i < kLanes; ++i) key[i] = Of(h.key, h, s, std::min(begin + i, h.end - 1), s.head_dim);
  F sum[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= s.head_dim; c += kLanes) {
    const F q = FloatsAt<kLanes>(h.q + c);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) sum[i] += q * FloatsAt<kLanes>(key[i] + c);
  }
  AddLanes<kLanes>(sum);
  for (; c < s.head_dim; ++c) {
    for (int i = 0; i < kLanes; ++i) sum[0][i] += h.q[c] * key[i][c];
  }
  FloatsAt<kLanes>(score) = sum[0];
}

// out[c..] = the weighted sum of kParts vectors of each value.
template <int kLanes, int kParts>
REIN_INLINE void AddValues(const Head& h, const PagedAttentionShape& s, int64_t c, float scale) {
  using F = Floats<kLanes>;
  F sum[kParts] = {};
  for (int64_t j = h.begin; j < h.end; ++j) {
    const float* value = Of(h.value, h, s, j, s.value_stride) + c;
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) sum[part] += h.score[j - h.begin] * FloatsAt<kLanes>(value + part * kLanes);
  }
  for (int part = 0; part < kParts; ++part) FloatsAt<kLanes>(h.out + c + part * kLanes) = sum[part] * scale;
}

template <int kLanes>
REIN_INLINE void Attend(const Head& h, const PagedAttentionShape& s) {
  const int64_t keys = h.end - h.begin;
  for (int64_t i = 0; i < keys; i += kLanes) Scores<kLanes>(h, s, h.begin + i, h.score + i);
  float highest = s.sinks != nullptr ? s.sinks[h.head] : -INFINITY;
  for (int64_t i = 0; i < keys; ++i) {
    float x = h.score[i] * static_cast<float>(s.scale);
    if (s.softcap > 0) x = std::tanh(x / static_cast<float>(s.softcap)) * static_cast<float>(s.softcap);
    if (s.alibi != nullptr) x -= s.alibi[h.head] * static_cast<float>(keys - 1 - i);
    h.score[i] = x;
    highest = std::max(highest, x);
  }
  float sum = s.sinks != nullptr ? std::exp(s.sinks[h.head] - highest) : 0;
  for (int64_t i = 0; i < keys; ++i) sum += h.score[i] = std::exp(h.score[i] - highest);
  int64_t c = 0;
  for (; c + 4 * kLanes <= s.value_dim; c += 4 * kLanes) AddValues<kLanes, 4>(h, s, c, 1 / sum);
  for (; c + kLanes <= s.value_dim; c += kLanes) AddValues<kLanes, 1>(h, s, c, 1 / sum);
  for (; c < s.value_dim; ++c) {
    float total = 0;
    for (int64_t j = h.begin; j < h.end; ++j) total += h.score[j - h.begin] * Of(h.value, h, s, j, s.value_stride)[c];
    h.out[c] = total / sum;
  }
}

REIN_AVX512 void Avx512(const Head& h, const PagedAttentionShape& s) { Attend<16>(h, s); }
REIN_AVX2 void Avx2(const Head& h, const PagedAttentionShape& s) { Attend<8>(h, s); }
void Plain(const Head& h, const PagedAttentionShape& s) { Attend<4>(h, s); }

}  // namespace

void PagedAttentionCpu(const float* q, const float* key, const float* value,
                       const int32_t* pages_BP, const int64_t* row_T, const int64_t* position_T,
                       int64_t tokens, const PagedAttentionShape& s, float* out, Simd simd) {
  const auto attend = simd == Simd::kAvx512 ? Avx512 : simd == Simd::kAvx2 ? Avx2 : Plain;
  at::parallel_for(0, tokens * s.heads, /*grain_size=*/8, [&](int64_t begin, int64_t end) {
    std::vector<float> score;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t t = item / s.heads, head = item % s.heads, kv_head = head / (s.heads / s.kv_heads);
      Head h{.q = q + item * s.head_dim,
             .key = key + kv_head * s.head_dim,
             .value = value + kv_head * s.value_stride,
             .pages = pages_BP + row_T[t] * s.pages_per_row,
             .begin = s.window > 0 ? std::max<int64_t>(0, position_T[t] + 1 - s.window) : 0,
             .end = position_T[t] + 1,
             .head = head,
             .out = out + item * s.value_dim};
      score.resize(std::max(score.size(), static_cast<size_t>(h.end - h.begin + kMostLanes)));
      h.score = score.data();
      attend(h, s);
    }
  });
}

}  // namespace rein::nn
