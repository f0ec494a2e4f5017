// One query of each sequence over the latents of its tokens, on a Hopper: latent attention with its projections absorbed
// (MLA, arXiv 2405.04434 §2.1). All heads of a sequence have the same keys, and the first dims of a key are its value.
//
// Keys are taken in tiles of 64, tiles in chunks of kLatentChunk and chunks in runs of kLatentRun, counted from position 0
// of the sequence. Inside a chunk the softmax is as in attention.h; the chunks of a run are added in order, and then the
// runs: a query's output has the same bits whatever stands beside it, and whether its runs are walked whole or not.
//
// B sequences, H heads.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

inline constexpr int kLatentChunk = 512, kLatentRun = 4;
inline constexpr int64_t kLatentKeyDim = 576, kLatentValueDim = 512;

// Whether the current device has it for keys and values of these widths.
bool LatentDecodeTakes(int64_t key_dim, int64_t value_dim);

// What the decode of a step has to do, the same in all layers.
struct LatentPlan {
  const int32_t* context = nullptr;  // [B]: the keys of each sequence
  int64_t sequences = 0, heads = 0;
  int64_t most_chunks = 0;  // of all sequences together; what is beyond is not computed
};

struct LatentDecode {
  const void* q = nullptr;     // bf16 [B, H, kLatentKeyDim]
  const void* keys = nullptr;  // bf16 [pages, page_tokens, kLatentKeyDim]
  int64_t pages = 0;
  int32_t page_shift = 0;             // a page holds 2^page_shift tokens, at least 16
  const int32_t* pages_of = nullptr;  // [B, pages_per_sequence]
  int32_t pages_per_sequence = 0;
  void* out = nullptr;                // bf16 [B, H, kLatentValueDim]; 0 where a sequence has no keys
  float scale = 1;
};

// `scratch` holds LatentScratchBytes() and was filled by PlanLatentDecode(), once for all layers. The launches depend on the
// host for nothing but these arguments, so that captured ones follow `context`. Of the keys only the newest of each sequence
// may come from the launch right before DecodeLatent(), where that one is not waited for (launch_overlap.cuh).
int64_t LatentScratchBytes(const LatentPlan& plan);
absl::Status PlanLatentDecode(const LatentPlan& plan, void* scratch, void* stream);
absl::Status DecodeLatent(const LatentDecode& run, const LatentPlan& plan, void* scratch, void* stream);

}  // namespace rein::kernels
