#include "common/nn/paged_attention_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace rein::nn {
namespace {

// One clone for each instruction set, chosen when the program starts.
#define REIN_CPU_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))

constexpr int64_t kLanes = 16;

REIN_CPU_CLONES float Dot(const float* a, const float* b, int64_t n) {
  float lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lane[l] += a[i + l] * b[i + l];
  }
  for (; i < n; ++i) lane[i % kLanes] += a[i] * b[i];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  return lane[0];
}

REIN_CPU_CLONES void AddScaled(float* out, float factor, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += factor * x[i];
}

// Keys [begin, end) of query head `head`, whose query stands at end - 1.
void AttendOneHead(const float* q, const float* key, const float* value, const int32_t* pages,
                   int64_t end, int64_t head, const PagedAttentionShape& s, float* score,
                   float* out) {
  const int64_t kv_head = head / (s.heads / s.kv_heads);
  const int64_t begin = s.window > 0 ? std::max<int64_t>(0, end - s.window) : 0;
  auto at = [&](const float* pool, int64_t j, int64_t stride) {
    const int64_t slot = pages[j / s.page_tokens] * s.page_tokens + j % s.page_tokens;
    return pool + (slot * s.kv_heads + kv_head) * stride;
  };
  float highest = s.sinks != nullptr ? s.sinks[head] : -INFINITY;
  for (int64_t j = begin; j < end; ++j) {
    float x = Dot(q, at(key, j, s.head_dim), s.head_dim) * static_cast<float>(s.scale);
    if (s.softcap > 0) {
      const auto cap = static_cast<float>(s.softcap);
      x = std::tanh(x / cap) * cap;
    }
    if (s.alibi != nullptr) x -= s.alibi[head] * static_cast<float>(end - 1 - j);
    score[j] = x;
    highest = std::max(highest, x);
  }
  float sum = s.sinks != nullptr ? std::exp(s.sinks[head] - highest) : 0;
  std::fill(out, out + s.value_dim, 0.0f);
  for (int64_t j = begin; j < end; ++j) {
    const float weight = std::exp(score[j] - highest);
    sum += weight;
    AddScaled(out, weight, at(value, j, s.value_stride), s.value_dim);
  }
  for (int64_t c = 0; c < s.value_dim; ++c) out[c] /= sum;
}

}  // namespace

void PagedAttentionCpu(const float* q, const float* key, const float* value,
                       const int32_t* pages_BP, const int64_t* row_T, const int64_t* position_T,
                       int64_t tokens, const PagedAttentionShape& s, float* out) {
  at::parallel_for(0, tokens * s.heads, /*grain_size=*/8, [&](int64_t begin, int64_t end) {
    std::vector<float> score;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t t = item / s.heads, h = item % s.heads;
      const int64_t context = position_T[t] + 1;
      if (score.size() < static_cast<size_t>(context)) score.resize(context);
      AttendOneHead(q + item * s.head_dim, key, value, pages_BP + row_T[t] * s.pages_per_row,
                    context, h, s, score.data(), out + item * s.value_dim);
    }
  });
}

}  // namespace rein::nn
