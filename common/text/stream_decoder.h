// StreamDecoder turns tokens into text as they come, and never emits half a character.
//
//   StreamDecoder decoder(tokenizer);
//   for (uint32_t id : ids) REIN_ASSIGN_OR_RETURN(std::string piece, decoder.Append(id));
//   REIN_ASSIGN_OR_RETURN(std::string rest, decoder.Flush());
//
// The pieces joined are Decode() of all ids, special tokens skipped. A token that ends inside a
// character gives "" and its text comes with the token that completes it. The tokenizer must
// outlive the decoder. Not thread-safe.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/text/tokenizer.h"

namespace rein::text {

class StreamDecoder {
 public:
  // Bytes that are no character after so many tokens are emitted as U+FFFD instead of held back.
  static constexpr size_t kMaxHeldTokens = 64;

  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  // Text that became final with this token.
  absl::StatusOr<std::string> Append(uint32_t id);
  // What was held back, U+FFFD for what is no character.
  absl::StatusOr<std::string> Flush();

 private:
  absl::StatusOr<std::string> Emit(bool even_if_incomplete);

  const Tokenizer* tokenizer_;
  std::vector<uint32_t> window_;  // context_ tokens already emitted, then those held back
  size_t context_ = 0;
};

}  // namespace rein::text
