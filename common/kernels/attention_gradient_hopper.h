// Gradients of attention by Hopper's warpgroup products (wgmma, sm_90a), for head dims of 64 and 128 and any rule.
//
// A first kernel owns keys and goes over the queries that see them: dv and dk stay in registers, and the gradient of the
// scores goes to memory, in bf16, tile by tile as the second kernel has it fetched, which owns queries and multiplies it by the
// keys: dq. Each product is computed once and no sum is shared between blocks, so the same inputs give the same bits.

#pragma once

#include <algorithm>
#include <functional>

#include "common/kernels/attention_backward.h"

namespace rein::kernels {

// What it allocates for the gradients of scores: of so many kv heads at a time as fit kMostScoreBytes, at least one.
struct ScoreGradients {
  static constexpr int64_t kMostBytes = int64_t{1} << 31;
  int64_t bytes_of_head = 0, heads_at_once = 0;

  // T tokens in B sequences, `group` heads of each of K kv heads.
  constexpr ScoreGradients(int64_t tokens, int64_t sequences, int64_t longest_query, int64_t longest_key, bool causal, int64_t group, int64_t kv_heads) {
    constexpr int64_t kRows = 64;
    // Tiles of all sequences, at most: one of x whole tiles and a rest has (x + 1) (x + 2) / 2 where causal.
    const int64_t all = tokens / kRows + 1, longest = (causal ? longest_query : longest_key) / kRows + 1;
    const int64_t tiles = causal ? (longest * all + 3 * all + 2 * sequences) / 2 + 1 : (all + sequences) * longest;
    bytes_of_head = tiles * group * kRows * kRows * 2;
    heads_at_once = std::clamp<int64_t>(kMostBytes / bytes_of_head, 1, kv_heads);
  }
  constexpr int64_t bytes() const { return bytes_of_head * heads_at_once; }
  constexpr bool fit() const { return bytes_of_head <= 2 * kMostBytes; }
};

// Whether it takes this width on a Hopper.
constexpr bool HopperBackwardTakes(int64_t head_dim, int64_t value_dim) { return head_dim == value_dim && (head_dim == 64 || head_dim == 128); }
// The same on the current device, where the gradients of scores fit.
bool HopperBackwardTakes(const AttentionBackward& run);

// dq, dk and dv of the ranges; `allocate` as in AttendBackward(). `delta`: of SumOfGradients().
absl::Status AttendBackwardHopper(const AttentionBackward& run, const float* delta, const std::function<void*(int64_t bytes)>& allocate,
                                  void* stream);

}  // namespace rein::kernels
