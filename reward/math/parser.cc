#include "reward/math/parser.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "reward/math/answer_parser.h"
#include "reward/math/lexer.h"
#include "reward/math/units.h"

namespace rein::reward::math {
namespace {

template <typename List>
bool Has(const List& list, absl::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

std::string Spelling(const std::vector<Token>& tokens) {
  std::string spelling;
  for (const Token& token : tokens) {
    if (token.kind == Token::Kind::kText) {
      for (char c : token.text) {
        if (!absl::ascii_isspace(c)) spelling += absl::ascii_tolower(c);
      }
    } else {
      absl::StrAppend(&spelling, token.kind == Token::Kind::kCommand ? "\\" : "", token.text);
    }
  }
  return spelling;
}

}  // namespace

int Parser::Run() {
  if (int words = Words(); words >= 0) return words;
  int root = Sequence(/*inside=*/false);
  return Peek().kind == Token::Kind::kEnd ? root : -1;
}

int Parser::Make(Kind kind, std::string text, Ids kids) {
  for (int kid : kids) {
    if (kid < 0) return -1;
  }
  if (out_.nodes.size() >= kMaxNodes) return -1;
  out_.nodes.push_back({kind, std::move(text), std::move(kids)});
  return static_cast<int>(out_.nodes.size()) - 1;
}

int Parser::Words() {
  std::string words;
  bool text = false;
  int runs = 0;
  for (const Token& token : tokens_) {
    if (token.kind == Token::Kind::kEnd) break;
    if (token.kind == Token::Kind::kSign &&
        Has(std::array<absl::string_view, 8>{"(", ")", ",", ".", "!", "-", "{", "}"}, token.text)) {
      if (token.text == "," && runs == 1 && words.size() < 3) return -1;  // a, b
      continue;
    }
    if (token.kind != Token::Kind::kText && token.kind != Token::Kind::kLetters) return -1;
    if (token.kind == Token::Kind::kText && absl::StrContains(token.text, "\\")) return -1;
    if (token.kind == Token::Kind::kLetters &&
        (IsFunction(token.text) || IsGreek(token.text) || token.text == "pi" ||
         IsInfinity(absl::AsciiStrToLower(token.text)))) {
      return -1;
    }
    text = text || token.kind == Token::Kind::kText;
    ++runs;
    absl::StrAppend(&words, words.empty() ? "" : " ", token.text);
  }
  if (runs == 0) return -1;
  const bool sentence = runs > 1 && std::count(words.begin(), words.end(), ' ') >= runs - 1 &&
                        words.size() >= static_cast<size_t>(3 * runs);
  const bool small = std::all_of(words.begin(), words.end(), absl::ascii_islower);
  if (!text && runs == 1 && words.size() <= 3 && (small || words.size() == 1)) return -1;
  if (!text && runs > 1 && !sentence) return -1;
  std::string plain;
  for (char c : absl::AsciiStrToLower(words)) {
    if (absl::ascii_isalnum(c) || c == ' ' || static_cast<unsigned char>(c) >= 0x80) plain += c;
  }
  if (plain.size() == 1)
    plain = std::string(1, *std::find_if(words.begin(), words.end(), absl::ascii_isalpha));
  if (plain.size() == 1) return Make(Kind::kSymbol, plain);
  return Make(Kind::kText, plain);
}

bool Parser::IsWord(absl::string_view word) const {
  return (Peek().kind == Token::Kind::kText || Peek().kind == Token::Kind::kLetters) &&
         absl::AsciiStrToLower(Peek().text) == word;
}

int Parser::Sequence(bool inside) {
  Ids items = {Relation()};
  while (items.back() >= 0) {
    if (Take(",") || Take(";")) {
      if (!inside && (IsWord("or") || IsWord("and"))) ++at_;
    } else if (IsWord("or") || IsWord("and")) {
      ++at_;
    } else {
      break;
    }
    items.push_back(Relation());
  }
  return items.size() == 1 ? items[0] : Make(Kind::kList, "", items);
}

std::optional<std::string> Parser::RelationSign() const {
  for (absl::string_view sign : {"=", "<", ">", "<=", ">=", "!="}) {
    if (IsSign(sign)) return std::string(sign);
  }
  if (IsCommand("in")) return "in";
  return std::nullopt;
}

int Parser::Relation() {
  Deeper deeper(depth_);
  if (depth_ > kMaxDepth) return -1;
  Ids sides = {Union()};
  std::string signs;
  while (std::optional<std::string> sign = RelationSign()) {
    ++at_;
    absl::StrAppend(&signs, signs.empty() ? "" : " ", *sign);
    sides.push_back(Union());
    if (sides.back() < 0) return -1;
  }
  return sides.size() == 1 ? sides[0] : Make(Kind::kRelation, signs, sides);
}

int Parser::Union() {
  int left = Ratio();
  while (left >= 0) {
    std::string sign;
    for (absl::string_view name : {"cup", "cap", "setminus"}) {
      if (IsCommand(name)) sign = std::string(name);
    }
    if (IsWord("u") && Peek().text == "U") sign = "cup";
    if (sign.empty()) break;
    ++at_;
    int right = Ratio();
    if (right < 0) return -1;
    if (sign == "cup" && KindOf(left) == Kind::kUnion && out_.nodes[left].text == sign) {
      out_.nodes[left].kids.push_back(right);
    } else {
      left = Make(Kind::kUnion, sign, {left, right});
    }
  }
  return left;
}

int Parser::Ratio() {
  Ids parts = {Sum()};
  while (parts.back() >= 0 && Take(":")) parts.push_back(Sum());
  return parts.size() == 1 ? parts[0] : Make(Kind::kRatio, "", parts);
}

int Parser::Sum() {
  Ids terms;
  bool first = true;
  while (true) {
    bool negative = false, both = false;
    if (Take("-")) {
      negative = true;
    } else if (IsCommand("pm") || IsCommand("mp")) {
      negative = IsCommand("mp");
      both = true;
      ++at_;
    } else if (!Take("+") && !first) {
      break;
    }
    if (IsSign("+") || IsSign("-")) {  // + -3
      if (Take("-"))
        negative = !negative;
      else
        Take("+");
    }
    first = false;
    int term = Product();
    if (both) term = Make(Kind::kPlusMinus, "", {term});
    if (negative) term = Negated(term);
    if (term < 0) return -1;
    terms.push_back(term);
  }
  return terms.size() == 1 ? terms[0] : Make(Kind::kAdd, "", terms);
}

int Parser::Negated(int node) {
  if (KindOf(node) != Kind::kQuantity && KindOf(node) != Kind::kPercent)
    return Make(Kind::kNegate, "", {node});
  if (node < 0) return -1;
  const int inner = Negated(out_.nodes[node].kids[0]);
  out_.nodes[node].kids[0] = inner;
  return inner < 0 ? -1 : node;
}

int Parser::Product() {
  Deeper deeper(depth_);
  if (depth_ > kMaxDepth) return -1;
  int left = Factor();
  bool number = KindOf(left) == Kind::kNumber;
  while (left >= 0) {
    if (Take("%")) {
      left = Make(Kind::kPercent, "", {left});
      number = false;
    } else if (Take("*")) {
      left = Make(Kind::kMultiply, "", {left, SignedFactor()});
      number = false;
    } else if (IsSign("/")) {
      ++at_;
      left = Make(Kind::kDivide, "", {left, SignedFactor()});
      number = false;
    } else if (std::optional<std::string> unit = TakeUnit(number)) {
      if (absl::AsciiStrToLower(*unit) == "percent" || absl::AsciiStrToLower(*unit) == "percents") {
        left = Make(Kind::kPercent, "", {left});
      } else {
        left = Make(Kind::kQuantity, *unit, {left});
      }
      number = false;
    } else if (number && MixedFraction()) {
      left = Make(Kind::kAdd, "", {left, Factor()});
      number = false;
      if (KindOf(left) == Kind::kAdd && Take("/")) {  // 1 1/2
        Ids& kids = out_.nodes[left].kids;
        int fraction = Make(Kind::kDivide, "", {kids[1], Factor()});
        if (fraction < 0) return -1;
        out_.nodes[left].kids[1] = fraction;
      }
    } else if (StartsFactor()) {
      left = Make(Kind::kMultiply, "", {left, Factor()});
      number = false;
    } else {
      break;
    }
  }
  return left;
}

int Parser::SignedFactor() {
  if (Take("-")) return Make(Kind::kNegate, "", {Factor()});
  Take("+");
  return Factor();
}

bool Parser::MixedFraction() const {
  if (IsCommand("frac")) {
    if (Peek(1).kind == Token::Kind::kNumber) return true;
    return IsSign("{", 1) && Peek(2).kind == Token::Kind::kNumber && IsSign("}", 3) &&
           IsSign("{", 4) && Peek(5).kind == Token::Kind::kNumber && IsSign("}", 6);
  }
  return Peek().kind == Token::Kind::kNumber && Peek().space && IsSign("/", 1) &&
         Peek(2).kind == Token::Kind::kNumber;
}

bool Parser::StartsFactor() const {
  const Token& token = Peek();
  switch (token.kind) {
    case Token::Kind::kEnd:
    case Token::Kind::kNumber:
      return false;
    case Token::Kind::kLetters:
      return !IsWord("or") && !IsWord("and") && token.text != "U";
    case Token::Kind::kText:
      return false;
    case Token::Kind::kCommand:
      return !Has(
          std::array<absl::string_view, 13>{"in", "cup", "cap", "setminus", "pm", "mp", "end",
                                            "dots", "degree", "circ", "to", "rfloor", "rceil"},
          token.text);
    case Token::Kind::kSign:
      return token.text == "(" || token.text == "[" || token.text == "{" ||
             (token.text == "|" && bars_ == 0);
  }
  return false;
}

std::optional<std::string> Parser::TakeUnit(bool after_number) {
  std::string unit;
  if (IsSign("^") && (Peek(1).text == "circ" || Peek(1).text == "degree")) {
    at_ += 2;
    unit = "degree";
  } else if (IsSign("^") && IsSign("{", 1) &&
             (Peek(2).text == "circ" || Peek(2).text == "degree") && IsSign("}", 3)) {
    at_ += 4;
    unit = "degree";
  } else if (IsCommand("degree") || IsCommand("circ")) {
    ++at_;
    unit = "degree";
  }
  if (!unit.empty()) {
    if (Peek().text == "C" || Peek().text == "F") {
      unit = Peek().text == "C" ? "celsius" : "fahrenheit";
      ++at_;
    }
    return unit;
  }
  auto takes = [&](bool letters) {
    if (IsWord("or") || IsWord("and")) return false;
    if (Peek().kind == Token::Kind::kText) return !absl::StrContains(Peek().text, "\\");
    return letters && Peek().kind == Token::Kind::kLetters && !IsFunction(Peek().text) &&
           !IsGreek(Peek().text) && !IsInfinity(Peek().text) && NamesUnit(Peek().text);
  };
  if (!takes(after_number)) return std::nullopt;
  while (true) {
    absl::StrAppend(&unit, unit.empty() ? "" : " ", Peek().text);
    ++at_;
    if (IsSign("^") && Peek(1).kind == Token::Kind::kNumber) {
      absl::StrAppend(&unit, "^", Peek(1).text);
      at_ += 2;
    } else if (IsSign("^") && IsSign("{", 1) && Peek(2).kind == Token::Kind::kNumber &&
               IsSign("}", 3)) {
      absl::StrAppend(&unit, "^", Peek(2).text);
      at_ += 4;
    }
    const bool over = IsSign("/") &&
                      (Peek(1).kind == Token::Kind::kText || Peek(1).kind == Token::Kind::kLetters);
    if (over) {
      absl::StrAppend(&unit, "/");
      ++at_;
    } else if (!takes(true) && !(Peek().kind == Token::Kind::kLetters && !IsWord("or") &&
                                 !IsWord("and") && Peek().space)) {
      return unit;
    }
  }
}

Expression ParseAnswer(absl::string_view text) {
  Expression expression;
  std::optional<std::vector<Token>> tokens = Tokenize(text);
  if (!tokens.has_value()) {
    expression.spelling = std::string(absl::StripAsciiWhitespace(text));
    return expression;
  }
  expression.spelling = Spelling(*tokens);
  expression.root = Parser(*std::move(tokens), expression).Run();
  return expression;
}

}  // namespace rein::reward::math
