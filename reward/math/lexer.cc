#include "reward/math/lexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace rein::reward::math {
namespace {

using Pair = std::pair<absl::string_view, absl::string_view>;

// Unicode signs and what they stand for in LaTeX.
constexpr std::array<Pair, 47> kUnicode = {{
    {"−", "-"},
    {"–", "-"},
    {"×", "*"},
    {"·", "*"},
    {"⋅", "*"},
    {"∗", "*"},
    {"÷", "/"},
    {"⁄", "/"},
    {"≤", "\\le "},
    {"⩽", "\\le "},
    {"≥", "\\ge "},
    {"⩾", "\\ge "},
    {"≠", "\\ne "},
    {"≈", "="},
    {"∞", "\\infty "},
    {"π", "\\pi "},
    {"√", "\\sqrt "},
    {"±", "\\pm "},
    {"∓", "\\mp "},
    {"∪", "\\cup "},
    {"∩", "\\cap "},
    {"∈", "\\in "},
    {"∅", "\\emptyset "},
    {"°", "\\degree "},
    {"º", "\\degree "},
    {"²", "^2 "},
    {"³", "^3 "},
    {"⁴", "^4 "},
    {"⁵", "^5 "},
    {"½", "\\frac{1}{2}"},
    {"¼", "\\frac{1}{4}"},
    {"¾", "\\frac{3}{4}"},
    {"⅓", "\\frac{1}{3}"},
    {"⅔", "\\frac{2}{3}"},
    {"θ", "\\theta "},
    {"α", "\\alpha "},
    {"β", "\\beta "},
    {"γ", "\\gamma "},
    {"λ", "\\lambda "},
    {"φ", "\\phi "},
    {"ℝ", "\\mathbb{R}"},
    {"ℤ", "\\mathbb{Z}"},
    {"\u00A0", " "},
    {"\u2009", " "},
    {"€", "\\euro "},
    {"£", "\\pounds "},
    {"′", ""},
}};

// Commands that change looks only.
constexpr std::array<absl::string_view, 44> kLooks = {
    "left",     "right",     "big",     "Big",         "bigg",       "Bigg",         "bigl",
    "bigr",     "Bigl",      "Bigr",    "biggl",       "biggr",      "displaystyle", "textstyle",
    "limits",   "quad",      "qquad",   "mathbf",      "boldsymbol", "mathit",       "bf",
    "rm",       "it",        "hspace",  "mathstrut",   "phantom",    "large",        "Large",
    "middle",   "boxed",     "fbox",    "scriptstyle", "ensuremath", "bm",           "mathsf",
    "nolimits", "thinspace", "enspace", "hfill",       "strut",      "mathop",       "mathrel",
    "vphantom", "mathbin"};

constexpr std::array<absl::string_view, 9> kTexts = {
    "text", "textbf", "textit", "textrm", "mbox", "hbox", "mathrm", "textnormal", "textsf"};

// Other names of one thing.
constexpr std::array<Pair, 37> kSame = {{
    {"dfrac", "frac"},
    {"tfrac", "frac"},
    {"cfrac", "frac"},
    {"dbinom", "binom"},
    {"tbinom", "binom"},
    {"leq", "<="},
    {"le", "<="},
    {"leqslant", "<="},
    {"geq", ">="},
    {"ge", ">="},
    {"geqslant", ">="},
    {"lt", "<"},
    {"gt", ">"},
    {"ne", "!="},
    {"neq", "!="},
    {"approx", "="},
    {"cdot", "*"},
    {"times", "*"},
    {"ast", "*"},
    {"div", "/"},
    {"lbrace", "\\{"},
    {"rbrace", "\\}"},
    {"lvert", "|"},
    {"rvert", "|"},
    {"vert", "|"},
    {"mid", "|"},
    {"lbrack", "["},
    {"rbrack", "]"},
    {"langle", "("},
    {"rangle", ")"},
    {"colon", ":"},
    {"ldots", "dots"},
    {"cdots", "dots"},
    {"varnothing", "emptyset"},
    {"backslash", "setminus"},
    {"equiv", "="},
    {"simeq", "="},
}};

std::string WithoutUnicode(absl::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      plain += text[i++];
      continue;
    }
    auto found = std::find_if(kUnicode.begin(), kUnicode.end(), [&](const Pair& pair) {
      return absl::StartsWith(text.substr(i), pair.first);
    });
    if (found == kUnicode.end()) {
      plain += text[i++];
    } else {
      absl::StrAppend(&plain, found->second);
      i += found->first.size();
    }
  }
  return plain;
}

class Lexer {
 public:
  explicit Lexer(std::string text) : text_(std::move(text)) {}

  std::vector<Token> Run() {
    while (at_ < text_.size()) Step();
    while (!tokens_.empty() && IsTail(tokens_.back())) tokens_.pop_back();
    tokens_.push_back({Token::Kind::kEnd, "", space_});
    return std::move(tokens_);
  }

 private:
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  static bool IsTail(const Token& token) {
    return token.kind == Token::Kind::kSign &&
           (token.text == "," || token.text == ";" || token.text == "." || token.text == ":");
  }

  void Add(Token::Kind kind, std::string text) {
    if (tokens_.empty() || kind != Token::Kind::kNumber) space_ = space_ && !tokens_.empty();
    tokens_.push_back({kind, std::move(text), space_});
    space_ = false;
  }

  void Step() {
    const char c = Peek();
    if (absl::ascii_isspace(c) || c == '~') {
      space_ = true;
      ++at_;
    } else if (absl::ascii_isdigit(c) || (c == '.' && absl::ascii_isdigit(Peek(1)))) {
      Number();
    } else if (c == '\\') {
      Command();
    } else if (absl::ascii_isalpha(c) || static_cast<unsigned char>(c) >= 0x80) {
      size_t begin = at_;
      const bool ascii = absl::ascii_isalpha(c);
      while (at_ < text_.size() &&
             (ascii ? absl::ascii_isalpha(Peek()) : static_cast<unsigned char>(Peek()) >= 0x80)) {
        ++at_;
      }
      Add(Token::Kind::kLetters, text_.substr(begin, at_ - begin));
    } else if (c == '$') {
      Dollar();
    } else {
      Sign();
    }
  }

  // A dollar opens or closes mathematics, unless a number follows the only one.
  void Dollar() {
    ++at_;
    bool alone = std::count(text_.begin(), text_.end(), '$') == 1;
    if (alone && (absl::ascii_isdigit(Peek()) || Peek() == '.')) Add(Token::Kind::kSign, "$");
  }

  void Sign() {
    for (const Pair& pair : {Pair{"<=", "<="}, Pair{">=", ">="}, Pair{"!=", "!="}, Pair{"**", "^"},
                             Pair{"==", "="}, Pair{"'", ""}, Pair{"\"", ""}, Pair{"`", ""}}) {
      // "5!=120" is a factorial and an equation.
      if (!absl::StartsWith(absl::string_view(text_).substr(at_), pair.first)) continue;
      at_ += pair.first.size();
      if (!pair.second.empty()) Add(Token::Kind::kSign, std::string(pair.second));
      return;
    }
    if (absl::StartsWith(absl::string_view(text_).substr(at_), "...")) {
      at_ += 3;
      return Add(Token::Kind::kCommand, "dots");
    }
    Add(Token::Kind::kSign, std::string(1, text_[at_++]));
  }

  void Number() {
    std::string digits;
    auto take = [&] {
      while (absl::ascii_isdigit(Peek())) digits += text_[at_++];
    };
    take();
    while (digits.size() <= 3 || grouped_) {
      size_t comma = GroupComma();
      if (comma == 0) break;
      at_ += comma;
      grouped_ = true;
      take();
    }
    grouped_ = false;
    if (Peek() == '.' && absl::ascii_isdigit(Peek(1))) {
      digits = digits.empty() ? "0" : digits;
      digits += text_[at_++];
      take();
    } else if (absl::StartsWith(absl::string_view(text_).substr(at_), ".\\overline{")) {
      digits += text_[at_++];
    } else if (Peek() == '.' && at_ + 1 == text_.size()) {
      ++at_;  // the end of a sentence
    }
    absl::string_view rest = absl::string_view(text_).substr(at_);
    if (absl::StartsWith(rest, "\\overline{")) TakeRepeating(digits);
    if ((Peek() == 'e' || Peek() == 'E') && HasExponent()) {
      Add(Token::Kind::kNumber, digits);
      ++at_;
      Add(Token::Kind::kSign, "*");
      Add(Token::Kind::kNumber, "10");
      Add(Token::Kind::kSign, "^");
      if (Peek() == '+') ++at_;
      return;
    }
    Add(Token::Kind::kNumber, digits);
  }

  bool HasExponent() const {
    size_t sign = Peek(1) == '-' || Peek(1) == '+' ? 1 : 0;
    return absl::ascii_isdigit(Peek(1 + sign));
  }

  void TakeRepeating(std::string& digits) {
    size_t begin = at_ + 10, end = text_.find('}', begin);
    if (end == std::string::npos || end == begin) return;
    std::string repeating = text_.substr(begin, end - begin);
    if (!std::all_of(repeating.begin(), repeating.end(), absl::ascii_isdigit)) return;
    if (digits.find('.') == std::string::npos) return;
    absl::StrAppend(&digits, "(", repeating, ")");
    at_ = end + 1;
  }

  // Length of what separates groups of three digits here: "," outside brackets, "{,}", "\,", "\!".
  size_t GroupComma() const {
    for (absl::string_view comma : {",\\!", "{,}", "\\,", "\\!", ","}) {
      if (!absl::StartsWith(absl::string_view(text_).substr(at_), comma)) continue;
      if (comma == "," && brackets_ > 0) return 0;
      size_t length = comma.size();
      for (size_t i = 0; i < 3; ++i) {
        if (!absl::ascii_isdigit(Peek(length + i))) return 0;
      }
      return absl::ascii_isdigit(Peek(length + 3)) ? 0 : length;
    }
    return 0;
  }

  void Command() {
    ++at_;
    if (!absl::ascii_isalpha(Peek())) {
      const char c = Peek();
      if (at_ < text_.size()) ++at_;
      if (c == '{' || c == '}')
        return Add(Token::Kind::kSign, absl::StrCat("\\", std::string(1, c)));
      if (c == '%' || c == '$' || c == '|' || c == '&') {
        return Add(Token::Kind::kSign, std::string(1, c));
      }
      if (c == '\\') return Add(Token::Kind::kSign, "\\\\");
      space_ = true;  // \, \; \: \! "\ " and \( \) \[ \]
      return;
    }
    size_t begin = at_;
    while (absl::ascii_isalpha(Peek())) ++at_;
    std::string name = text_.substr(begin, at_ - begin);
    if (std::find(kLooks.begin(), kLooks.end(), name) != kLooks.end()) {
      if ((name == "left" || name == "right") && Peek() == '.') ++at_;
      return;
    }
    if (std::find(kTexts.begin(), kTexts.end(), name) != kTexts.end()) return Text(name);
    if (name == "mathbb" || name == "mathcal" || name == "operatorname") return Named(name);
    auto same = std::find_if(kSame.begin(), kSame.end(),
                             [&](const Pair& pair) { return pair.first == name; });
    std::string meant(same == kSame.end() ? name : same->second);
    Add(absl::ascii_isalpha(meant.front()) ? Token::Kind::kCommand : Token::Kind::kSign, meant);
  }

  // The content of the braces that open here; "" when none do.
  std::string Braced() {
    while (Peek() == ' ' || Peek() == '*') ++at_;
    if (Peek() != '{') return "";
    int depth = 0;
    for (size_t i = at_; i < text_.size(); ++i) {
      if (text_[i] == '{') ++depth;
      if (text_[i] == '}' && --depth == 0) {
        std::string content = text_.substr(at_ + 1, i - at_ - 1);
        at_ = i + 1;
        return content;
      }
    }
    return "";
  }

  void Text(const std::string& name) {
    std::string content = Braced();
    std::string stripped(absl::StripAsciiWhitespace(content));
    if (stripped.empty()) {
      space_ = true;
      return;
    }
    if (name == "mathrm" && stripped.size() <= 2 && stripped != "cm" && stripped != "kg" &&
        stripped != "km" && stripped != "mm" &&
        (stripped == "e" || stripped == "i" || stripped == "ln")) {
      return Add(Token::Kind::kLetters, stripped);
    }
    const bool digits = absl::ascii_isdigit(stripped.front()) || stripped.front() == '-';
    if (digits && stripped.find('\\') == std::string::npos) {  // \text{12}: a number in text
      text_.replace(at_, 0, stripped);
      return;
    }
    Add(Token::Kind::kText, stripped);
  }

  void Named(const std::string& name) {
    std::string content(absl::StripAsciiWhitespace(Braced()));
    if (name == "operatorname") return Add(Token::Kind::kLetters, content);
    Add(Token::Kind::kCommand, absl::StrCat(name, "{", content, "}"));
  }

  std::string text_;
  size_t at_ = 0;
  bool space_ = false;
  bool grouped_ = false;
  const int brackets_ = static_cast<int>(
      std::count(text_.begin(), text_.end(), '(') + std::count(text_.begin(), text_.end(), '[') +
      (absl::StrContains(text_, "\\{") ? 1 : 0) + (!text_.empty() && text_.front() == '{' ? 1 : 0));
  std::vector<Token> tokens_;
};

}  // namespace

std::optional<std::vector<Token>> Tokenize(absl::string_view text) {
  if (text.size() > kMaxAnswerBytes) return std::nullopt;
  for (char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 && !absl::ascii_isspace(c)) return std::nullopt;
  }
  return Lexer(WithoutUnicode(text)).Run();
}

}  // namespace rein::reward::math
