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

void AttendOneHead(const float* q, const float* key, const float* value, const int32_t* pages,
                   int64_t context, int64_t kv_head, const PagedAttentionShape& s, float* score,
                   float* out) {
  const int64_t token_stride = s.kv_heads * s.head_dim;
  const int64_t page_stride = s.page_tokens * token_stride;
  auto at = [&](const float* pool, int64_t j) {
    return pool + pages[j / s.page_tokens] * page_stride + (j % s.page_tokens) * token_stride +
           kv_head * s.head_dim;
  };
  float highest = -INFINITY;
  for (int64_t j = 0; j < context; ++j) {
    score[j] = Dot(q, at(key, j), s.head_dim) * static_cast<float>(s.scale);
    highest = std::max(highest, score[j]);
  }
  float sum = 0;
  std::fill(out, out + s.head_dim, 0.0f);
  for (int64_t j = 0; j < context; ++j) {
    const float weight = std::exp(score[j] - highest);
    sum += weight;
    AddScaled(out, weight, at(value, j), s.head_dim);
  }
  for (int64_t c = 0; c < s.head_dim; ++c) out[c] /= sum;
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
                    context, h / (s.heads / s.kv_heads), s, score.data(),
                    out + item * s.head_dim);
    }
  });
}

}  // namespace rein::nn
