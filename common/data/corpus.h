// Corpus cuts tokenised documents into sequences of one length and says which comes when: parts with weights, a share of
// each part's documents, passes over a part in an order of its own.
//
//   REIN_ASSIGN_OR_RETURN(auto corpus, Corpus::Create(std::move(parts), {.sequence_tokens = 4096, .sequences = 1000}));
//   REIN_ASSIGN_OR_RETURN(auto pieces, corpus->Read(17));    // one for each document in sequence 17
//
// Sequence k of a part holds tokens [k (n - 1), k (n - 1) + n) of its documents one after the other: neighbours share a
// token, so that every token but the first is predicted once in a pass; what does not fill a sequence at the end is left
// out. Which sequence comes at place i depends on the options alone, so a place is all that a restart needs. Not
// thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/data/megatron_index.h"

namespace rein::data {

struct CorpusPart {
  std::unique_ptr<IndexedTokens> tokens;
  double weight = 0;  // relative to the others'; 0 in all parts: by their tokens
};

struct CorpusOptions {
  uint64_t sequence_tokens = 0;  // n, at least 2
  // Shares of each part's documents: where the part in use begins and ends, rounded as Megatron rounds them.
  double share_begin = 0, share_end = 1;
  // How many sequences there are, over as many passes as that takes; 0: `passes` over all parts.
  uint64_t sequences = 0;
  double passes = 1;
  uint64_t seed = 1;
  bool shuffle = true;  // the sequences of a part, anew in each of its passes
};

class Corpus {
 public:
  // INVALID_ARGUMENT names a part that has no whole sequence in its share.
  static absl::StatusOr<std::unique_ptr<Corpus>> Create(std::vector<CorpusPart> parts,
                                                        const CorpusOptions& options);

  uint64_t size() const { return size_; }
  // Sequences of one pass over all parts.
  uint64_t sequences_in_pass() const { return in_pass_; }

  // The sequence at a place below size(), cut where documents end.
  absl::StatusOr<std::vector<std::vector<uint32_t>>> Read(uint64_t place);

 private:
  struct Part {
    CorpusPart source;
    uint64_t begin = 0;      // of the share in use, in the stream
    uint64_t sequences = 0;  // in one pass
    double share = 0;        // of what is drawn
    uint64_t kept_pass = UINT64_MAX;
    std::vector<uint64_t> order;  // of that pass
  };

  explicit Corpus(const CorpusOptions& options) : options_(options) {}

  absl::Status Add(CorpusPart source);
  void Blend();

  const CorpusOptions options_;
  std::vector<Part> parts_;
  uint64_t in_pass_ = 0, size_ = 0;
  // With several parts: which one place i is drawn from, and which of its draws it is.
  std::vector<uint16_t> part_at_;
  std::vector<uint64_t> draw_at_;
};

}  // namespace rein::data
