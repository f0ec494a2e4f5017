// Tokenize splits a LaTeX or plain answer into the words that the parser reads.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace rein::reward::math {

struct Token {
  enum class Kind {
    kNumber,   // 12, 0.5, 1,000 (commas gone), .5 as 0.5
    kLetters,  // a run of letters
    kCommand,  // \name without the backslash; also what Unicode signs stand for
    kText,     // the content of \text{...} and its relatives
    kSign,     // one of + - * / ^ _ ( ) [ ] { } | ! , ; : = < > % & or a command-like one below
    kEnd,
  };
  Kind kind = Kind::kEnd;
  // For signs also: "<=", ">=", "!=", "\\{", "\\}", "\\\\" (a row's end), "$" (currency).
  std::string text;
  bool space = false;  // white space stands before it
};

// Longest answer that is read; a longer one is compared as text.
inline constexpr size_t kMaxAnswerBytes = 4096;

// Ends with kEnd. Spaces, sizes (\left, \big, \displaystyle) and math delimiters are gone, fonts
// too; \dfrac is frac. nullopt for what is longer than kMaxAnswerBytes or holds a control
// character.
std::optional<std::vector<Token>> Tokenize(absl::string_view text);

}  // namespace rein::reward::math
