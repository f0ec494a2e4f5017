// Parser is the grammar behind ParseAnswer: recursive descent over the tokens of an answer.
//
// A rule returns its node, or -1 once something cannot be read; then so does every rule above it.

#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

#include "reward/math/expression.h"
#include "reward/math/lexer.h"
#include "reward/math/parser.h"

namespace rein::reward::math {

class Parser {
 public:
  using Ids = std::vector<int>;

  Parser(std::vector<Token> tokens, Expression& out) : tokens_(std::move(tokens)), out_(out) {}

  int Run();

 private:
  struct Deeper {
    explicit Deeper(int& depth) : depth(++depth) {}
    ~Deeper() { --depth; }
    int& depth;
  };

  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  bool IsSign(absl::string_view sign, size_t ahead = 0) const {
    return Peek(ahead).kind == Token::Kind::kSign && Peek(ahead).text == sign;
  }
  bool IsCommand(absl::string_view name) const {
    return Peek().kind == Token::Kind::kCommand && Peek().text == name;
  }
  bool Take(absl::string_view sign) {
    if (!IsSign(sign)) return false;
    ++at_;
    return true;
  }

  int Make(Kind kind, std::string text, Ids kids = {});
  int Number(absl::string_view digits) { return Make(Kind::kNumber, std::string(digits)); }
  Kind KindOf(int node) const { return node < 0 ? Kind::kText : out_.nodes[node].kind; }

  // Nothing but words: "no solution", "\text{Monday}", "(B)". Short runs of small letters may be
  // products, and are left to the other rules.
  int Words();

  bool IsWord(absl::string_view word) const;

  // Relations with "," ";" "or" "and" between: a list in any order, when there are several.
  int Sequence(bool inside);

  std::optional<std::string> RelationSign() const;
  int Relation();
  int Union();
  int Ratio();
  int Sum();

  // -(5 cm) is (-5) cm.
  int Negated(int node);
  int Product();
  int SignedFactor();

  // A whole number with a fraction of digits behind it, as 1\frac{1}{2} or 1 1/2.
  bool MixedFraction() const;

  bool StartsFactor() const;

  // The unit that stands here, with its powers and "/ unit": \text{ cm}^2, km/h, ^\circ.
  std::optional<std::string> TakeUnit(bool after_number);
  int Factor();

  // What follows a primary: powers, factorials, bases.
  int Raised(int node);

  // What a command, ^ or _ takes: a group in braces, or one thing. `digit`: one digit of a number.
  int Argument(bool digit);
  int Primary();
  int Symbol(std::string name);

  // A run of letters: a name that is known, or a product of one-letter symbols.
  int Letters(const std::string& run);

  // C(n, k).
  int Binomial();
  int Command(const std::string& name);
  int Currency(const std::string& unit);

  // sin x, sin^2 x, sin^{-1} x, log_2 x, sin(x): the name was taken.
  int Function(const std::string& name);

  // \begin{pmatrix} a & b \\ c & d \end{pmatrix}; \begin was taken.
  int Matrix();
  int Bracketed();

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int bars_ = 0;  // | that are open
  Expression& out_;
};

// Functions of one argument that may be written without brackets; Greek letters; infinity.
bool IsFunction(absl::string_view word);
bool IsGreek(absl::string_view word);
bool IsInfinity(absl::string_view word);

}  // namespace rein::reward::math
