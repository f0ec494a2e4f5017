// SequenceView says which packed tokens belong to which sequence, and where their keys and values live:
// in the batch itself (training, scoring) or in pages (generation).
//
// T packed tokens, B sequences, P pages per sequence, K kv heads, C head dim.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace rein::nn {

// Keys and values of one layer, in pages.
struct KvPages {
  at::Tensor key;    // [pages, page_tokens, K, C]; fp8 where the model rounds to it and kernels read it
  at::Tensor value;  // the same shape
  at::Tensor choice = {};  // int16 [pages, page_tokens, chosen experts] of a sparse layer; undefined: not kept
};

// Where the tokens of a step stand in the pages.
struct PageMap {
  std::vector<KvPages>* layers = nullptr;  // not owned
  int64_t page_tokens = 0;
  at::Tensor slot_T;    // int64: page * page_tokens + offset for each new token
  at::Tensor pages_BP;  // int32 on the device: the pages of each sequence, rows padded with 0

  // On a GPU: the leading sequences that have one query each, whose keys are read in chunks by many blocks at
  // once. PlanDecode() fills the scratch, once for all layers.
  int64_t single_queries = 0;
  int64_t most_chunks = 0;    // of these sequences together, at least as many as there are
  at::Tensor shared_B;        // int32: leading keys on the same pages as the sequence before; undefined: none
  at::Tensor decode_scratch;  // bytes
};

struct SharedPrompts;

struct SequenceView {
  at::Tensor position_T;           // int64, place of each token in its sequence, from 0 unless segments say so
  std::vector<int64_t> offsets;    // B + 1: tokens [offsets[b], offsets[b+1]) belong to sequence b
  at::Tensor offsets_device;       // the same as int32 on the compute device
  at::Tensor context_B;            // int32 on the compute device: keys of each sequence, new ones included
  int64_t longest = 0;             // most tokens of one sequence in this batch
  const PageMap* pages = nullptr;  // null: keys and values are those of the batch itself
  std::shared_ptr<const SharedPrompts> shared;  // null: every sequence stands for itself

  int64_t num_sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

// Sequences that continue another's tokens, as the completions of one prompt do: what the prompt computes is
// computed once, and every continuation attends to it. S sequences, G of them prompts that others continue.
struct SharedPrompts {
  // Every sequence with its prompt's tokens before its own, E tokens in all.
  at::Tensor source_E;                         // int64: where each is packed
  at::Tensor own_T;                            // int64: where each packed token stands among them
  at::Tensor begin_S;                          // int32 on the compute device: where each sequence begins among them
  std::shared_ptr<const SequenceView> copies;  // of them, as if nothing were shared

  // int32 on the compute device: among the packed tokens, each prompt, and what continues it.
  at::Tensor prompt_begin_G, prompt_length_G, tail_begin_G, tail_length_G;
  int64_t longest_prompt = 0, longest_tail = 0;
};

// Some packed tokens that stand side by side in one sequence.
struct Segment {
  int64_t length = 0;
  bool continues = false;  // the last segment before it that does not; else it begins at `first_position`
  int64_t first_position = 0;
};

// A view of segments, packed one after another, on `device`. The first one continues nothing.
SequenceView PackedSegments(const std::vector<Segment>& segments, at::Device device);

// A view of whole sequences of the given lengths, packed one after another, on `device`.
SequenceView PackedSequences(const std::vector<int64_t>& lengths, at::Device device);

// Lays out the decode work of a step with so many query heads of so many dims (GPU only; nothing to do
// without single queries).
void PlanDecode(PageMap& map, const at::Tensor& context_B, int64_t heads, int64_t head_dim);

}  // namespace rein::nn
