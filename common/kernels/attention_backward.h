// Gradients of causal grouped-query attention over packed sequences, bf16 on the GPU, given the output and the
// log-sum-exp of AttendPrefill(): on a Hopper by the kernels of attention_gradient_hopper.h for head dims of 64 and 128, and for
// others by cuDNN's backward (its open frontend), asked for its deterministic algorithm, where it takes the rule and the head
// dim; else by the kernels of attention_gradient.h. The same inputs give the same bits.
//
// A plan of cuDNN is built for each size of batch and of longest sequence, rounded up, at first use (a fraction of a
// second), and kept until the process ends. Thread-safe.
//
// Each of B ranges of queries attends to a range of keys: its own tokens, causally, or any others, whole. Where
// keys are shared among ranges, or seen in several calls, gradients of the calls are to be added: `out`, `lse` are
// of all the keys that a query sees.
//
// T tokens, H heads, K kv heads, C head dim, Cv of values.

#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "common/kernels/attention.h"
#include "common/kernels/ragged_offsets.h"

namespace rein::kernels {

// Device memory of the current device; strides are elements between tokens, heads of a token are C apart.
struct AttentionBackward {
  const void* q = nullptr;          // bf16 [T, H, C]
  const void* k = nullptr;          // bf16 [T, K, C]
  const void* v = nullptr;          // bf16 [T, K, Cv]
  const void* out = nullptr;        // bf16 [T, H, Cv], dense
  const void* dout = nullptr;       // bf16 [T, H, Cv], dense
  const float* lse = nullptr;       // fp32 [T, H], dense: natural logarithms
  Ragged query, key;
  bool causal = true;  // then the ranges of keys are those of the queries
  ScoreRule rule;      // without a window or ALiBi where not causal
  float* dsinks = nullptr;  // fp32 [H], added to; null: not wanted
  void* dq = nullptr;  // bf16 [T, H, C], dense; written for the tokens of the ranges
  void* dk = nullptr;  // bf16 [T, K, C], dense
  void* dv = nullptr;  // bf16 [T, K, Cv], dense
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  int64_t tokens = 0, sequences = 0, longest_query = 0, longest_key = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  float scale = 1;
};

// The sizes that plans are built for, few of them: tokens of a batch, and the longest of its sequences.
constexpr int64_t PlannedAbove(int64_t n, int64_t least, int64_t factor) {
  while (least < n) least *= factor;
  return least;
}
constexpr int64_t PlannedTokens(int64_t tokens) {
  constexpr int64_t kMany = 16384;
  return tokens <= kMany ? PlannedAbove(tokens, 1024, 4) : (tokens + kMany - 1) / kMany * kMany;
}
constexpr int64_t PlannedLength(int64_t longest) { return PlannedAbove(longest, 512, 2); }

// `allocate` gives device memory of so many bytes that stays valid until the stream has passed. INTERNAL with
// cuDNN's own words when it refuses, UNIMPLEMENTED in a build without CUDA, and where C and Cv differ and cuDNN does
// not take them: the other kernels want them equal.
absl::Status AttendBackward(const AttentionBackward& run,
                            const std::function<void*(int64_t bytes)>& allocate, void* stream);

}  // namespace rein::kernels
