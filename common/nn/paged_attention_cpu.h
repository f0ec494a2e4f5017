// Attention of packed new tokens over keys and values in pages, on the CPU, fp32.

#pragma once

#include <cstdint>

namespace rein::nn {

struct PagedAttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0, page_tokens = 0;
  int64_t pages_per_row = 0;  // row length of `pages_BP`
  double scale = 1;
};

// For token t of sequence `row_T[t]` at position `position_T[t]`: attends to positions 0..position_T[t].
// q and out are [T, heads, head_dim], key and value [pages, page_tokens, kv_heads, head_dim]. A row's
// bits depend on nothing but its own query and keys.
void PagedAttentionCpu(const float* q, const float* key, const float* value,
                       const int32_t* pages_BP, const int64_t* row_T, const int64_t* position_T,
                       int64_t tokens, const PagedAttentionShape& shape, float* out);

}  // namespace rein::nn
