// Fill-in-the-middle: a share of the documents is cut in three at random characters and told out of order, so that a
// model learns to write what belongs between two texts. Bavarian et al., "Efficient Training of Language Models to Fill in
// the Middle" (arXiv 2207.14255); the order of tokens is that of BigCode's Megatron-LM.
//
//   prefix first:  PREFIX prefix SUFFIX suffix MIDDLE middle
//   suffix first:  PREFIX SUFFIX suffix MIDDLE prefix middle

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "common/text/model_text.h"

namespace rein::data {

struct FillInTheMiddleOptions {
  double rate = 0;           // share of documents, 0 to 1
  double suffix_first = 0.5;  // share of these that are told suffix first
  uint64_t seed = 1;
  // Prefix, suffix, middle; empty: those of StarCoder, Qwen2.5-Coder, DeepSeek-Coder or CodeLlama, as the tokenizer has.
  std::vector<std::string> tokens;
};

class FillInTheMiddle {
 public:
  // INVALID_ARGUMENT when an option is out of its range, or the tokenizer lacks the tokens.
  static absl::StatusOr<FillInTheMiddle> Create(const FillInTheMiddleOptions& options, const text::ModelText& text);

  // The ids of a document, without an end token. `file` and `line` name it: the same draws whatever came before.
  absl::StatusOr<std::vector<uint32_t>> Encode(std::string_view document, uint64_t file, uint64_t line) const;

 private:
  FillInTheMiddle(const FillInTheMiddleOptions& options, const text::ModelText& text) : options_(options), text_(&text) {}

  FillInTheMiddleOptions options_;
  const text::ModelText* text_;
  uint32_t prefix_ = 0, suffix_ = 0, middle_ = 0;
};

}  // namespace rein::data
