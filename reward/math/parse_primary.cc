// The part of Parser that reads numbers, names, commands and brackets.

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "reward/math/answer_parser.h"

namespace rein::reward::math {
namespace {

// Functions of one argument that may be written without brackets.
constexpr std::array<absl::string_view, 24> kFunctions = {
    "sin",    "cos",  "tan",  "cot",  "sec",   "csc",  "arcsin", "arccos",
    "arctan", "asin", "acos", "atan", "sinh",  "cosh", "tanh",   "log",
    "ln",     "lg",   "exp",  "abs",  "floor", "ceil", "sqrt",   "cbrt"};

constexpr std::array<absl::string_view, 24> kGreek = {
    "alpha", "beta",    "gamma",  "delta", "epsilon", "zeta",  "eta",    "theta",
    "iota",  "kappa",   "lambda", "mu",    "nu",      "xi",    "rho",    "sigma",
    "tau",   "upsilon", "phi",    "chi",   "psi",     "omega", "varphi", "vartheta"};

template <typename List>
bool Has(const List& list, absl::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

}  // namespace

bool IsFunction(absl::string_view word) { return Has(kFunctions, word); }
bool IsGreek(absl::string_view word) { return Has(kGreek, word); }
bool IsInfinity(absl::string_view word) {
  return word == "infty" || word == "infinity" || word == "inf" || word == "oo";
}

int Parser::Factor() {
  Deeper deeper(depth_);
  if (depth_ > kMaxDepth) return -1;
  return Raised(Primary());
}

int Parser::Raised(int node) {
  while (node >= 0) {
    if (IsSign("^") && (Peek(1).text == "circ" || Peek(1).text == "degree" ||
                        (IsSign("{", 1) && Peek(2).text == "circ"))) {
      return node;  // a unit
    }
    if (Take("^")) {
      node = Make(Kind::kPower, "", {node, Argument(/*digit=*/false)});
    } else if (Take("!")) {
      node = Make(Kind::kCall, "factorial", {node});
    } else if (IsSign("_") && KindOf(node) == Kind::kNumber) {
      ++at_;
      int number = Argument(/*digit=*/false);
      node = KindOf(number) == Kind::kNumber ? Make(Kind::kBased, out_.nodes[node].text, {number})
                                             : -1;
    } else {
      break;
    }
  }
  return node;
}

int Parser::Argument(bool digit) {
  Deeper deeper(depth_);
  if (depth_ > kMaxDepth) return -1;
  if (Take("{")) {
    int node = Sequence(/*inside=*/true);
    return Take("}") ? node : -1;
  }
  Token& token = tokens_[at_];
  const bool number = token.kind == Token::Kind::kNumber;
  if ((number && digit && token.text.size() > 1) ||
      (token.kind == Token::Kind::kLetters && token.text.size() > 1 && digit)) {
    std::string one = token.text.substr(0, 1);
    token.text.erase(0, 1);
    return number ? Number(one) : Symbol(one);
  }
  if (Take("-")) return Make(Kind::kNegate, "", {Argument(digit)});
  if (IsCommand("pm")) {
    ++at_;
    return Make(Kind::kPlusMinus, "", {Argument(digit)});
  }
  return Primary();
}

int Parser::Primary() {
  Deeper deeper(depth_);
  if (depth_ > kMaxDepth) return -1;
  const Token token = Peek();
  switch (token.kind) {
    case Token::Kind::kNumber:
      ++at_;
      if (IsCommand("dots")) ++at_;  // 0.333...
      return Number(token.text);
    case Token::Kind::kLetters:
      ++at_;
      return Letters(token.text);
    case Token::Kind::kText:
      ++at_;
      return Make(Kind::kText, absl::AsciiStrToLower(token.text));
    case Token::Kind::kCommand:
      ++at_;
      return Command(token.text);
    case Token::Kind::kSign:
      return Bracketed();
    case Token::Kind::kEnd:
      return -1;
  }
  return -1;
}

int Parser::Symbol(std::string name) {
  if (name == "i" || name == "e") return Make(Kind::kConstant, name);
  if (IsSign("_")) {
    ++at_;
    size_t begin = at_;
    if (Take("{")) {
      while (!IsSign("}") && Peek().kind != Token::Kind::kEnd) ++at_;
      if (!Take("}")) return -1;
    } else {
      ++at_;
    }
    absl::StrAppend(&name, "_");
    for (size_t i = begin; i < std::min(at_, tokens_.size() - 1); ++i) {
      if (tokens_[i].text != "{" && tokens_[i].text != "}") absl::StrAppend(&name, tokens_[i].text);
    }
  }
  return Make(Kind::kSymbol, name);
}

int Parser::Letters(const std::string& run) {
  if (run == "pi" || run == "Pi") return Make(Kind::kConstant, "pi");
  if (IsInfinity(absl::AsciiStrToLower(run))) return Make(Kind::kConstant, "infinity");
  if (IsFunction(run)) return Function(run);
  if (IsGreek(run)) return Symbol(run);
  if (run == "max" || run == "min" || run == "gcd" || run == "lcm") return Symbol(run);
  if (run == "C" && IsSign("(")) return Binomial();
  int left = -1;
  for (size_t i = 0; i < run.size(); ++i) {
    const std::string name(1, run[i]);
    int symbol = i + 1 == run.size()          ? Symbol(name)
                 : name == "i" || name == "e" ? Make(Kind::kConstant, name)
                                              : Make(Kind::kSymbol, name);
    if (i + 1 == run.size()) symbol = Raised(symbol);  // ab^2 is a b^2
    left = i == 0 ? symbol : Make(Kind::kMultiply, "", {left, symbol});
    if (left < 0) return -1;
  }
  return left;
}

int Parser::Binomial() {
  Take("(");
  int n = Sum();
  if (!Take(",")) return -1;
  int k = Sum();
  return Take(")") ? Make(Kind::kCall, "binomial", {n, k}) : -1;
}

int Parser::Command(const std::string& name) {
  if (name == "frac") {
    int numerator = Argument(/*digit=*/true);
    return Make(Kind::kDivide, "", {numerator, Argument(/*digit=*/true)});
  }
  if (name == "binom") {
    int n = Argument(/*digit=*/true);
    return Make(Kind::kCall, "binomial", {n, Argument(/*digit=*/true)});
  }
  if (name == "sqrt") {
    int degree = -1;
    if (Take("[")) {
      degree = Sum();
      if (degree < 0 || !Take("]")) return -1;
    }
    int inner = Argument(/*digit=*/false);
    return degree < 0 ? Make(Kind::kCall, "sqrt", {inner})
                      : Make(Kind::kCall, "root", {inner, degree});
  }
  if (IsFunction(name)) return Function(name);
  if (name == "pi") return Make(Kind::kConstant, "pi");
  if (IsInfinity(name)) return Make(Kind::kConstant, "infinity");
  if (name == "emptyset") return Make(Kind::kSet, "");
  if (name == "begin") return Matrix();
  if (name == "lfloor" || name == "lceil") {
    int inner = Sum();
    if (!IsCommand(name == "lfloor" ? "rfloor" : "rceil")) return -1;
    ++at_;
    return Make(Kind::kCall, name == "lfloor" ? "floor" : "ceil", {inner});
  }
  if (name == "euro" || name == "pounds")
    return Currency(name == "euro" ? "euro" : "pounds-sterling");
  if (name == "pm" || name == "mp" || name == "end" || name == "dots" || name == "in") return -1;
  return Symbol(name);
}

int Parser::Currency(const std::string& unit) { return Make(Kind::kQuantity, unit, {Product()}); }

int Parser::Function(const std::string& name) {
  int base = -1, power = -1;
  if (name == "log" && Take("_")) {
    base = Argument(/*digit=*/true);
    if (base < 0) return -1;
  }
  if (Take("^")) {
    power = Argument(/*digit=*/false);
    if (power < 0) return -1;
  }
  int argument = -1;
  if (IsSign("(") || IsSign("{") || IsSign("[")) {
    argument = Bracketed();
  } else {
    argument = Factor();  // sin 2x: all factors up to the next sign
    while (argument >= 0 && StartsFactor() && !IsSign("(") &&
           !(Peek().kind == Token::Kind::kCommand && IsFunction(Peek().text)) && name != "sqrt") {
      argument = Make(Kind::kMultiply, "", {argument, Factor()});
    }
    if (IsSign("^") && argument >= 0) {  // sin 30^\circ
      if (std::optional<std::string> unit = TakeUnit(false))
        argument = Make(Kind::kQuantity, *unit, {argument});
    }
  }
  if (argument < 0) return -1;
  const bool inverse = power >= 0 && KindOf(power) == Kind::kNegate && name.size() == 3 &&
                       name != "log" && name != "exp" &&
                       out_.nodes[out_.nodes[power].kids[0]].text == "1";
  const std::string called = inverse ? absl::StrCat("arc", name) : name;
  int call = base >= 0 ? Make(Kind::kCall, "log", {argument, base})
                       : Make(Kind::kCall, called, {argument});
  return power >= 0 && !inverse ? Make(Kind::kPower, "", {call, power}) : call;
}

int Parser::Matrix() {
  auto environment = [&] {
    if (!Take("{") || Peek().kind != Token::Kind::kLetters) return std::string();
    std::string name = Peek().text;
    ++at_;
    Take("*");
    return Take("}") ? name : "";
  };
  std::string name = environment();
  if (name == "array" && Take("{")) {
    while (!IsSign("}") && Peek().kind != Token::Kind::kEnd) ++at_;
    if (!Take("}")) return -1;
  } else if (!absl::EndsWith(name, "matrix") && name != "array") {
    return -1;
  }
  Ids elements;
  size_t columns = 0, in_row = 0;
  while (true) {
    elements.push_back(Sum());
    if (elements.back() < 0) return -1;
    ++in_row;
    if (Take("&")) continue;
    bool more = Take("\\\\");
    if (columns == 0) columns = in_row;
    if (in_row != columns) return -1;
    in_row = 0;
    if (IsCommand("end")) break;
    if (!more) return -1;
  }
  ++at_;
  if (environment() != name) return -1;
  return Make(Kind::kMatrix, absl::StrCat(columns), elements);
}

int Parser::Bracketed() {
  if (Take("$")) return Currency("dollar");
  if (IsSign("|")) {
    ++at_;
    ++bars_;
    int inner = Sum();
    --bars_;
    return Take("|") ? Make(Kind::kCall, "abs", {inner}) : -1;
  }
  const std::string open = Peek().text;
  if (open != "(" && open != "[" && open != "{" && open != "\\{") return -1;
  ++at_;
  const int bars = std::exchange(bars_, 0);
  const bool set = open == "\\{" || open == "{";
  if (set && (Take("\\}") || Take("}"))) return Make(Kind::kSet, "");
  int inner = Sequence(/*inside=*/true);
  bars_ = bars;
  if (inner < 0) return -1;
  std::string close = Peek().text;
  if (Peek().kind != Token::Kind::kSign) return -1;
  ++at_;
  const bool several = KindOf(inner) == Kind::kList;
  if (set) {
    if (close != (open == "{" ? "}" : "\\}")) return -1;
    if (open == "{" && !several) return inner;
    return Make(Kind::kSet, "", several ? out_.nodes[inner].kids : Ids{inner});
  }
  if (close != ")" && close != "]") return -1;
  if (!several) return (open == "(") == (close == ")") ? inner : -1;
  return Make(Kind::kTuple, open + close, Ids(out_.nodes[inner].kids));
}

}  // namespace rein::reward::math
