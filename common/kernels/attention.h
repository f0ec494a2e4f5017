// Causal grouped-query attention forward (arXiv 2305.13245), bf16 on the GPU, one arithmetic for training,
// prefill and decode: a query's output has the same bits whatever stands beside it, however its keys were
// cached, chunked or split among blocks.
//
// Keys are taken in tiles of kKeyTile and tiles in chunks of kKeyChunk, both counted from position 0 of the
// sequence. Inside a chunk the softmax is online, with a maximum that is a whole power of two, so that
// rescaling is exact; chunks start from zero and are added in order. Decoding computes the chunks apart and
// adds them in the same order. Products are mma.sync m16n8k16 with fp32 sums, the inner dimension in order.
//
// T query tokens, H heads, K kv heads (divides H), C head dim, B sequences.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

inline constexpr int kKeyTile = 64;
inline constexpr int kKeyChunk = 256;
inline constexpr int kQueryTile = 128;

constexpr bool AttentionTakes(int64_t head_dim) {
  return head_dim == 32 || head_dim == 64 || head_dim == 96 || head_dim == 128 || head_dim == 256;
}

// The least head dim that is taken and holds so many; 0: there is none.
constexpr int64_t AttentionDimAbove(int64_t width) {
  for (int64_t dim : {32, 64, 96, 128, 256}) {
    if (dim >= width) return dim;
  }
  return 0;
}

// Where the keys and values are; element strides of one token are given, heads of a token are C apart.
struct KeyValues {
  const void* key = nullptr;    // bf16 or fp8
  const void* value = nullptr;  // as the keys
  bool fp8 = false;             // e4m3, whose numbers are bf16 too: the same bits come out as of those in bf16
  int64_t key_stride = 0, value_stride = 0;
  int64_t tokens = 0;  // in memory, where there are no pages
  const int32_t* pages = nullptr;  // [B, pages_per_sequence], or null: sequence b begins at token begin[b]
  const int32_t* begin = nullptr;  // [B]
  int32_t pages_per_sequence = 0;
  int32_t page_shift = 0;  // a page holds 2^page_shift tokens, at least 16
};

// How scores become weights, beside their scale. A score is capped, then takes its distance's share, then the mask.
struct ScoreRule {
  int32_t window = 0;            // above 0: a query sees that many keys, itself included (arXiv 2310.06825)
  float softcap = 0;             // above 0: cap tanh(score / cap) (arXiv 2408.00118)
  const float* alibi = nullptr;  // fp32 [H] or null: slope (key - query) is added to scores (arXiv 2108.12409)
  const void* sinks = nullptr;   // bf16 [H] or null: one more score, of a key without a value (arXiv 2508.10925)

  constexpr bool bends_scores() const { return softcap > 0 || alibi != nullptr; }
  constexpr bool plain() const { return window == 0 && !bends_scores() && sinks == nullptr; }
};

struct AttentionForward {
  const void* q = nullptr;  // bf16 [T, H, C]
  int64_t q_stride = 0;     // elements between tokens
  KeyValues keys;
  const int32_t* query_begin = nullptr;  // [B + 1]: the queries of each sequence among the T
  const int32_t* context = nullptr;      // [B]: its keys, the queries' own at the end included
  void* out = nullptr;                   // bf16 [T, H, C]
  float* lse = nullptr;                  // fp32 or null: log sum exp of scores and sink, natural
  int64_t lse_token_stride = 1, lse_head_stride = 0;
  int64_t tokens = 0, sequences = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t value_dim = 0;  // of values and output: head_dim, but where AttentionTakesWidths()
  float scale = 1;
  ScoreRule rule;
  int32_t* counter = nullptr;  // a number of scratch, for AttendPrefill
};

// Whether this device takes keys and values of these different widths, packed (no pages): those that latent attention
// expands, on a Hopper.
bool AttentionTakesWidths(int64_t head_dim, int64_t value_dim, const ScoreRule& rule);

// Any number of queries of each sequence; `longest` is the most of one.
absl::Status AttendPrefill(const AttentionForward& run, int64_t longest, void* stream);

// What the decode of a step has to do, the same in all layers.
struct DecodePlan {
  const int32_t* context = nullptr;  // [B], as in AttentionForward
  // [B] or null: how many leading keys a sequence has on the same pages as the one before it. Chunks that
  // neighbours share, siblings of one prompt, are read once for as many of them as fit a tile of queries.
  const int32_t* shared = nullptr;
  int64_t sequences = 0, heads = 0, kv_heads = 0;
  int64_t most_chunks = 0;  // of all sequences together; what is beyond is not computed
};

// One query of each sequence (T = B, query_begin unused). `scratch` holds DecodeScratchBytes() and was
// filled by PlanDecode() for the same sequences, once for all layers. The launches depend on the host for
// nothing but these arguments, so that captured ones follow `context` and `shared`.
absl::Status AttendDecode(const AttentionForward& run, int64_t most_chunks, void* scratch,
                          void* stream);
absl::Status PlanDecode(const DecodePlan& plan, void* scratch, void* stream);
int64_t DecodeScratchBytes(int64_t most_chunks, int64_t sequences, int64_t heads, int64_t head_dim);

}  // namespace rein::kernels
