// Gradients of causal grouped-query attention over packed sequences, bf16 on the GPU: cuDNN's backward (by its
// open frontend), given the output and the log-sum-exp of AttendPrefill(). It is asked for its deterministic
// algorithm: the same inputs give the same bits.
//
// A plan is built for each size of batch and of longest sequence, rounded up, at first use (a fraction of a
// second), and kept until the process ends. Thread-safe.
//
// T tokens, H heads, K kv heads, C head dim, B sequences.

#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"

namespace rein::kernels {

// Device memory of the current device; strides are elements between tokens, heads of a token are C apart.
struct AttentionBackward {
  const void* q = nullptr;          // bf16 [T, H, C]
  const void* k = nullptr;          // bf16 [T, K, C]
  const void* v = nullptr;          // bf16 [T, K, C]
  const void* out = nullptr;        // bf16 [T, H, C], dense
  const void* dout = nullptr;       // bf16 [T, H, C], dense
  const float* lse = nullptr;       // fp32 [T, H], dense: natural logarithms
  const int32_t* begin = nullptr;   // [B + 1]: where each sequence begins among the tokens
  void* dq = nullptr;               // bf16 [T, H, C], dense
  void* dk = nullptr;               // bf16 [T, K, C], dense
  void* dv = nullptr;               // bf16 [T, K, C], dense
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  int64_t tokens = 0, sequences = 0, longest = 0, heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;
};

constexpr bool AttentionBackwardTakes(int64_t head_dim) { return head_dim == 64 || head_dim == 128; }

// `allocate` gives device memory of so many bytes that stays valid until the stream has passed. INTERNAL with
// cuDNN's own words when it refuses, UNIMPLEMENTED in a build without CUDA.
absl::Status AttendBackward(const AttentionBackward& run,
                            const std::function<void*(int64_t bytes)>& allocate, void* stream);

}  // namespace rein::kernels
