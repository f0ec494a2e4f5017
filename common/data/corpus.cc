#include "common/data/corpus.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

#include "common/data/data_order.h"
#include "common/random/philox.h"
#include "common/status/status_macros.h"

namespace rein::data {

absl::StatusOr<std::unique_ptr<Corpus>> Corpus::Create(std::vector<CorpusPart> parts,
                                                       const CorpusOptions& options) {
  if (options.sequence_tokens < 2) return absl::InvalidArgumentError("a sequence has at least 2 tokens");
  if (parts.empty() || parts.size() > UINT16_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("a corpus has 1 to ", UINT16_MAX, " parts, got ", parts.size()));
  }
  auto corpus = std::unique_ptr<Corpus>(new Corpus(options));
  for (CorpusPart& part : parts) REIN_RETURN_IF_ERROR(corpus->Add(std::move(part)));
  corpus->Blend();
  return corpus;
}

absl::Status Corpus::Add(CorpusPart source) {
  const IndexedTokens& tokens = *source.tokens;
  const auto documents = static_cast<double>(tokens.documents());
  const auto first = static_cast<uint64_t>(std::llround(options_.share_begin * documents));
  const auto end = static_cast<uint64_t>(std::llround(options_.share_end * documents));
  Part part;
  part.begin = first == 0 ? 0 : tokens.EndOf(first - 1);
  const uint64_t count = end == first ? 0 : tokens.EndOf(end - 1) - part.begin;
  part.sequences = count < 2 ? 0 : (count - 1) / (options_.sequence_tokens - 1);
  if (part.sequences == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        tokens.path(), ": documents ", first, " to ", end, " of ", tokens.documents(), " have ", count,
        " tokens, a sequence has ", options_.sequence_tokens));
  }
  in_pass_ += part.sequences;
  part.source = std::move(source);
  parts_.push_back(std::move(part));
  return absl::OkStatus();
}

// Place i is drawn from the part that is the furthest behind its share (Megatron's build_blending_indices).
void Corpus::Blend() {
  size_ = options_.sequences > 0
              ? options_.sequences
              : static_cast<uint64_t>(std::ceil(options_.passes * static_cast<double>(in_pass_)));
  double sum = 0;
  for (const Part& part : parts_) sum += part.source.weight;
  const bool by_tokens = sum == 0;
  for (Part& part : parts_) {
    part.share = by_tokens ? static_cast<double>(part.sequences) / static_cast<double>(in_pass_)
                           : part.source.weight / sum;
  }
  if (parts_.size() == 1) return;
  std::vector<uint64_t> drawn(parts_.size(), 0);
  for (uint64_t i = 0; i < size_; ++i) {
    size_t chosen = parts_.size();
    double most = 0;
    for (size_t p = 0; p < parts_.size(); ++p) {
      // By tokens, no part begins its next pass before all have ended theirs.
      if (by_tokens && drawn[p] == parts_[p].sequences * (i / in_pass_ + 1)) continue;
      const double behind =
          parts_[p].share * static_cast<double>(i + 1) - static_cast<double>(drawn[p]);
      if (chosen < parts_.size() && behind <= most) continue;
      chosen = p;
      most = behind;
    }
    part_at_.push_back(static_cast<uint16_t>(chosen));
    draw_at_.push_back(drawn[chosen]++);
  }
}

absl::StatusOr<std::vector<std::vector<uint32_t>>> Corpus::Read(uint64_t place) {
  if (place >= size_) {
    return absl::OutOfRangeError(absl::StrCat("sequence ", place, " was asked for, there are ", size_));
  }
  const size_t p = parts_.size() == 1 ? 0 : part_at_[place];
  const uint64_t draw = parts_.size() == 1 ? place : draw_at_[place];
  Part& part = parts_[p];
  uint64_t sequence = draw % part.sequences;
  if (options_.shuffle) {
    const uint64_t pass = draw / part.sequences;
    if (part.kept_pass != pass) {
      part.order = Permutation(part.sequences, random::DeriveKey(options_.seed, p), pass);
      part.kept_pass = pass;
    }
    sequence = part.order[sequence];
  }
  const IndexedTokens& tokens = *part.source.tokens;
  const uint64_t begin = part.begin + sequence * (options_.sequence_tokens - 1);
  const uint64_t end = begin + options_.sequence_tokens;
  REIN_ASSIGN_OR_RETURN(std::vector<uint32_t> ids, tokens.Read(begin, options_.sequence_tokens));
  std::vector<std::vector<uint32_t>> pieces;
  for (uint64_t at = begin; at < end;) {
    const uint64_t stop = std::min(end, tokens.EndOf(tokens.DocumentAt(at)));
    pieces.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(at - begin),
                        ids.begin() + static_cast<std::ptrdiff_t>(stop - begin));
    at = stop;
  }
  return pieces;
}

}  // namespace rein::data
