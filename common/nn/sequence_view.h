// SequenceView says which packed tokens belong to which sequence, and where their keys and values live:
// in the batch itself (training, scoring) or in pages (generation).
//
// T packed tokens, B sequences, P pages per sequence, K kv heads, C head dim.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace rein::nn {

// Keys and values of one layer, in pages.
struct KvPages {
  at::Tensor key;    // [pages, page_tokens, K, C]
  at::Tensor value;  // the same shape
};

// Where the tokens of a step stand in the pages.
struct PageMap {
  std::vector<KvPages>* layers = nullptr;  // not owned
  int64_t page_tokens = 0;
  at::Tensor slot_T;                // int64: page * page_tokens + offset for each new token
  at::Tensor pages_BP;              // int32: the pages of each sequence, rows padded with 0
  std::vector<int64_t> context_B;   // tokens of each sequence after this step, the new ones included

  // On a GPU all keys of the step are gathered before each layer's attention; see PlanGather().
  at::Tensor context_slot_N;  // int64: slots of all context tokens, sequence after sequence
  at::Tensor context_ends;    // int32 [B + 1]: where each sequence's context begins among them
  int64_t longest_context = 0;
};

// Fills the last three from pages_BP and context_B, once for all layers.
void PlanGather(PageMap& map, at::Device device);

struct SequenceView {
  at::Tensor position_T;           // int64, place of each token in its sequence, from 0
  std::vector<int64_t> offsets;    // B + 1: tokens [offsets[b], offsets[b+1]) belong to sequence b
  at::Tensor offsets_device;       // the same as int32 on the compute device
  int64_t longest = 0;             // most tokens of one sequence in this batch
  const PageMap* pages = nullptr;  // null: keys and values are those of the batch itself

  int64_t num_sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

// A view of whole sequences of the given lengths, packed one after another, on `device`.
SequenceView PackedSequences(const std::vector<int64_t>& lengths, at::Device device);

}  // namespace rein::nn
