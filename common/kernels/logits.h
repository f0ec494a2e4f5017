// What is made of a row of logits: log-probability and entropy for training, the drawn token for
// generation. bf16 logits in, fp32 arithmetic, never [rows, vocabulary] in fp32.
//
//   z = logits / temperature,  lse = log sum exp z,  logprob = z[target] - lse,  entropy = lse - sum p z
//
// A row is cut into slices of kVocabularySlice columns, each reduced by one block in a fixed order, and
// slices are added in order: a row's bits depend on nothing but its logits, and the log-prob of a drawn
// token is the trainer's. N rows, V vocabulary; pointers are device memory of the current device.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

inline constexpr int64_t kVocabularySlice = 8192;

// Bytes of scratch for the first two functions.
int64_t LogitScratchBytes(int64_t rows, int64_t vocabulary);

struct LogitStats {
  const void* logits = nullptr;     // bf16 [N, stride]
  int64_t stride = 0;               // elements between rows
  const int64_t* target = nullptr;  // [N], in [0, V)
  float temperature = 1;
  float* logprob = nullptr;  // fp32 [N]
  float* entropy = nullptr;  // fp32 [N], nats
  float* lse = nullptr;      // fp32 [N] or null
  void* scratch = nullptr;
  int64_t rows = 0, vocabulary = 0;
};

// Returns after the launch; INTERNAL when it was refused, UNIMPLEMENTED in a build without CUDA.
absl::Status ComputeLogitStats(const LogitStats& run, void* stream);

// Replaces the logits by the gradient of them:
//   d z = dlogprob (onehot - p) - dentropy p (log p + entropy),   d logits = d z / temperature
struct LogitGradient {
  void* logits = nullptr;  // bf16 [N, stride], in and out
  int64_t stride = 0;      // a multiple of 8
  const int64_t* target = nullptr;
  float temperature = 1;
  const float* lse = nullptr;       // [N], of the forward
  const float* entropy = nullptr;   // [N]
  const float* dlogprob = nullptr;  // [N] or null: zeros
  const float* dentropy = nullptr;  // [N] or null: zeros
  float softcap = 0;  // above 0: the logits are CapLogits()'s, and the gradient is of those before
  int64_t rows = 0, vocabulary = 0;
};
absl::Status ComputeLogitGradient(const LogitGradient& run, void* stream);

// Replaces each of `count` bf16 logits, a multiple of 8, by bf16(cap tanh(logit / cap)) (arXiv 2408.00118).
absl::Status CapLogits(void* logits, int64_t count, float cap, void* stream);

// How one row is drawn: the largest z + Gumbel noise, the noise of column v being a function of
// (key, position, v) alone (rollout/sampling/gumbel_noise.h says which); the lowest column among equals.
struct DrawRow {
  uint64_t key = 0;
  uint32_t position = 0;
  float temperature = 1;  // 0: the largest logit, and log-probs at temperature 1
};

struct TokenDraw {
  const void* logits = nullptr;  // bf16 [N, stride]; -inf where a token must not be drawn
  int64_t stride = 0;
  const DrawRow* row = nullptr;       // [N]
  int64_t* token = nullptr;           // [N]
  float* logprob = nullptr;           // [N], of z
  float* untempered = nullptr;        // [N] or null: at temperature 1
  void* scratch = nullptr;
  int64_t rows = 0, vocabulary = 0;
};
absl::Status DrawTokens(const TokenDraw& run, void* stream);

// Replaces each negative token -1 - r by drawn[r]: what a step that is still under way draws in row r.
absl::Status PlaceDrawnTokens(int64_t* token, int64_t count, const int64_t* drawn, void* stream);

}  // namespace rein::kernels
