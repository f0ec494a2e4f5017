// Attention of packed new tokens over keys and values in pages, on the CPU, fp32.

#pragma once

#include <cstdint>

#include "common/nn/simd.h"

namespace rein::nn {

struct PagedAttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t value_dim = 0;     // of the output
  int64_t value_stride = 0;  // from one kv head's value to the next one's, at least value_dim
  int64_t page_tokens = 0;
  int64_t pages_per_row = 0;  // row length of `pages_BP`
  double scale = 1;
  // As in AttentionRule.
  double softcap = 0;
  int64_t window = 0;
  const float* alibi = nullptr;  // [heads]
  const float* sinks = nullptr;  // [heads]
};

// For token t of sequence `row_T[t]` at position `position_T[t]`: attends to positions 0..position_T[t].
// q is [T, heads, head_dim], out [T, heads, value_dim], key [pages, page_tokens, kv_heads, head_dim] and value
// the same with value_stride. A row's bits depend on nothing but its own query and keys, and `simd`.
void PagedAttentionCpu(const float* q, const float* key, const float* value,
                       const int32_t* pages_BP, const int64_t* row_T, const int64_t* position_T,
                       int64_t tokens, const PagedAttentionShape& shape, float* out, Simd simd = Simds().front());

}  // namespace rein::nn
