#include "rollout/environments/calculator.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/status/status_macros.h"

namespace rein::rollout {
namespace {

constexpr size_t kMaxBytes = 1000;
constexpr int kMaxDepth = 64;

// A fraction while it fits, else a double.
struct Number {
  bool exact = false;
  int64_t over = 0, under = 1;  // exact: lowest terms, under > 0
  double value = 0;             // not exact

  double Double() const {
    return exact ? static_cast<double>(over) / static_cast<double>(under) : value;
  }
  bool whole() const { return exact && under == 1; }
};

Number Inexact(double value) { return {.value = value}; }

// over / under; inexact when it does not fit. `under` is not 0.
Number Fraction(__int128 over, __int128 under) {
  __int128 a = over < 0 ? -over : over, b = under < 0 ? -under : under;
  while (b != 0) std::swap(a %= b, b);
  if (a == 0) a = 1;
  over /= a;
  under /= a;
  if (under < 0) {
    over = -over;
    under = -under;
  }
  constexpr __int128 kMost = std::numeric_limits<int64_t>::max();
  if (over > kMost || over < -kMost || under > kMost) {
    return Inexact(static_cast<double>(over) / static_cast<double>(under));
  }
  return {.exact = true, .over = static_cast<int64_t>(over), .under = static_cast<int64_t>(under)};
}

Number Whole(int64_t value) { return {.exact = true, .over = value}; }

absl::Status Bad(std::string what) { return absl::InvalidArgumentError(std::move(what)); }

int64_t FloorOf(const Number& x) {  // exact
  const int64_t quotient = x.over / x.under;
  return quotient - (x.over % x.under < 0 ? 1 : 0);
}

Number Floor(const Number& x) { return x.exact ? Whole(FloorOf(x)) : Inexact(std::floor(x.value)); }

Number Negative(const Number& x) {
  return x.exact ? Number{.exact = true, .over = -x.over, .under = x.under} : Inexact(-x.value);
}

Number Sum(const Number& a, const Number& b) {
  if (!a.exact || !b.exact) return Inexact(a.Double() + b.Double());
  return Fraction(static_cast<__int128>(a.over) * b.under + static_cast<__int128>(b.over) * a.under,
                  static_cast<__int128>(a.under) * b.under);
}

Number Product(const Number& a, const Number& b) {
  if (!a.exact || !b.exact) return Inexact(a.Double() * b.Double());
  return Fraction(static_cast<__int128>(a.over) * b.over, static_cast<__int128>(a.under) * b.under);
}

absl::StatusOr<Number> Quotient(const Number& a, const Number& b) {
  if (b.Double() == 0) return Bad("division by zero");
  if (!a.exact || !b.exact) return Inexact(a.Double() / b.Double());
  return Fraction(static_cast<__int128>(a.over) * b.under, static_cast<__int128>(a.under) * b.over);
}

absl::StatusOr<Number> Power(const Number& base, const Number& exponent) {
  if (base.Double() == 0 && exponent.Double() < 0) return Bad("division by zero");
  if (base.exact && exponent.whole() && std::abs(exponent.over) <= 1024) {
    Number result = Whole(1);
    for (int64_t i = 0; i < std::abs(exponent.over) && result.exact; ++i) result = Product(result, base);
    if (result.exact && exponent.over < 0) return Quotient(Whole(1), result);
    if (result.exact) return result;
  }
  return Inexact(std::pow(base.Double(), exponent.Double()));
}

absl::StatusOr<Number> Factorial(const Number& x) {
  if (!x.whole() || x.over < 0) return Bad("factorial wants a whole number that is not negative");
  if (x.over > 170) return Bad("factorial of more than 170");
  Number result = Whole(1);
  for (int64_t i = 2; i <= x.over; ++i) result = Product(result, Whole(i));
  return result;
}

absl::StatusOr<Number> Root(const Number& x) {
  if (x.exact && x.over >= 0) {
    auto root = [](int64_t n) { return static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(n)))); };
    const int64_t over = root(x.over), under = root(x.under);
    if (static_cast<__int128>(over) * over == x.over && static_cast<__int128>(under) * under == x.under) {
      return Fraction(over, under);
    }
  }
  return Inexact(std::sqrt(x.Double()));
}

Number Best(const std::vector<Number>& numbers, bool largest) {
  Number best = numbers[0];
  for (const Number& x : numbers) {
    if (largest ? x.Double() > best.Double() : x.Double() < best.Double()) best = x;
  }
  return best;
}

// Half away from zero.
absl::StatusOr<Number> Round(const Number& x, const Number& digits) {
  if (!digits.whole() || std::abs(digits.over) > 15) return Bad("round wants -15 to 15 digits");
  REIN_ASSIGN_OR_RETURN(Number scale, Power(Whole(10), digits));
  const Number scaled = Product(x, scale);
  const Number size = scaled.Double() < 0 ? Negative(scaled) : scaled;
  const Number rounded = Floor(Sum(size, Fraction(1, 2)));
  return Quotient(scaled.Double() < 0 ? Negative(rounded) : rounded, scale);
}

absl::StatusOr<Number> Call(const std::string& name, const std::vector<Number>& x) {
  using OneOf = double (*)(double);
  static const auto& of_one = *new std::map<std::string, OneOf>{
      {"cos", std::cos},     {"exp", std::exp},     {"ln", std::log},  {"log10", std::log10},
      {"log2", std::log2},   {"sin", std::sin},     {"tan", std::tan}};
  auto wants = [&](size_t least, size_t most) -> absl::Status {
    if (x.size() >= least && x.size() <= most) return absl::OkStatus();
    return Bad(absl::StrCat(name, " got ", x.size(), " numbers, wants ", least,
                            most == least ? "" : most > 2 ? " or more" : " or 2"));
  };
  if (auto found = of_one.find(name); found != of_one.end()) {
    REIN_RETURN_IF_ERROR(wants(1, 1));
    return Inexact(found->second(x[0].Double()));
  }
  const bool several = name == "max" || name == "min";
  const bool two = name == "log" || name == "round", pair = name == "gcd";
  static const auto& known = *new std::vector<std::string>{"abs", "ceil", "factorial", "floor", "gcd",
                                                          "log", "max",  "min",       "round", "sqrt"};
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    return Bad(absl::StrCat("there is no function ", name));
  }
  REIN_RETURN_IF_ERROR(wants(pair ? 2 : 1, several ? kMaxBytes : two || pair ? 2 : 1));
  if (several) return Best(x, name == "max");
  if (name == "abs") return x[0].Double() < 0 ? Negative(x[0]) : x[0];
  if (name == "ceil") return Negative(Floor(Negative(x[0])));
  if (name == "floor") return Floor(x[0]);
  if (name == "factorial") return Factorial(x[0]);
  if (name == "sqrt") return Root(x[0]);
  if (name == "round") return Round(x[0], x.size() > 1 ? x[1] : Whole(0));
  if (name == "gcd") {
    if (!x[0].whole() || !x[1].whole()) return Bad("gcd wants whole numbers");
    return Whole(std::gcd(x[0].over, x[1].over));
  }
  const double log = std::log(x[0].Double());
  return Inexact(x.size() == 1 ? log : log / std::log(x[1].Double()));
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<Number> Parse() {
    REIN_ASSIGN_OR_RETURN(Number value, Terms());
    if (Peek() != '\0') return Bad(absl::StrCat("'", std::string(text_.substr(at_, 10)), "' at ", at_ + 1, " is not understood"));
    return value;
  }

 private:
  char Peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool Take(std::string_view sign) {
    Peek();
    if (text_.substr(at_, sign.size()) != sign) return false;
    at_ += sign.size();
    return true;
  }

  absl::StatusOr<Number> Terms() {
    REIN_ASSIGN_OR_RETURN(Number value, Factors());
    for (;;) {
      const bool minus = Peek() == '-';
      if (!Take("+") && !Take("-")) return value;
      REIN_ASSIGN_OR_RETURN(Number next, Factors());
      value = Sum(value, minus ? Negative(next) : next);
    }
  }

  absl::StatusOr<Number> Factors() {
    REIN_ASSIGN_OR_RETURN(Number value, Signed());
    for (;;) {
      const bool power = Peek() == '*' && text_.substr(at_, 2) == "**";
      if (!power && (Take("*") || Take("×"))) {
        REIN_ASSIGN_OR_RETURN(Number next, Signed());
        value = Product(value, next);
      } else if (Take("//")) {
        REIN_ASSIGN_OR_RETURN(Number next, Signed());
        REIN_ASSIGN_OR_RETURN(Number quotient, Quotient(value, next));
        value = Floor(quotient);
      } else if (Take("/") || Take("÷")) {
        REIN_ASSIGN_OR_RETURN(Number next, Signed());
        REIN_ASSIGN_OR_RETURN(value, Quotient(value, next));
      } else if (Take("%")) {
        REIN_ASSIGN_OR_RETURN(Number next, Signed());
        REIN_ASSIGN_OR_RETURN(Number quotient, Quotient(value, next));
        value = Sum(value, Negative(Product(Floor(quotient), next)));
      } else {
        return value;
      }
    }
  }

  absl::StatusOr<Number> Signed() {
    if (++depth_ > kMaxDepth) return Bad(absl::StrCat("more than ", kMaxDepth, " brackets or signs deep"));
    absl::StatusOr<Number> value;
    if (Take("-")) {
      value = Signed();
      if (value.ok()) value = Negative(*value);
    } else if (Take("+")) {
      value = Signed();
    } else {
      value = Powered();
    }
    --depth_;
    return value;
  }

  absl::StatusOr<Number> Powered() {
    REIN_ASSIGN_OR_RETURN(Number value, Primary());
    if (!Take("**") && !Take("^")) return value;
    REIN_ASSIGN_OR_RETURN(Number exponent, Signed());
    return Power(value, exponent);
  }

  absl::StatusOr<Number> Primary() {
    const char c = Peek();
    if (Take("(")) {
      REIN_ASSIGN_OR_RETURN(Number value, Terms());
      if (!Take(")")) return Bad(absl::StrCat("a ) is missing at ", at_ + 1));
      return value;
    }
    if ((c >= '0' && c <= '9') || c == '.') return Literal();
    size_t end = at_;
    while (end < text_.size() && (absl::ascii_isalnum(static_cast<unsigned char>(text_[end])) || text_[end] == '_')) ++end;
    const std::string name(text_.substr(at_, end - at_));
    if (name.empty()) {
      return c == '\0' ? Bad("the expression ends too early")
                       : Bad(absl::StrCat("'", std::string(text_.substr(at_, 10)), "' at ", at_ + 1, " is not understood"));
    }
    at_ = end;
    if (Peek() != '(') {
      if (name == "pi") return Inexact(M_PI);
      if (name == "e") return Inexact(M_E);
      return Bad(absl::StrCat("there is no number ", name));
    }
    Take("(");
    ++calls_;
    std::vector<Number> numbers;
    do {
      REIN_ASSIGN_OR_RETURN(numbers.emplace_back(), Terms());
    } while (Take(","));
    --calls_;
    if (!Take(")")) return Bad(absl::StrCat("a ) is missing at ", at_ + 1));
    return Call(name, numbers);
  }

  // Digits with commas between thousands, a fraction, an exponent.
  absl::StatusOr<Number> Literal() {
    std::string digits;
    int64_t places = 0;
    bool point = false;
    auto digit = [&](size_t i) { return i < text_.size() && text_[i] >= '0' && text_[i] <= '9'; };
    for (;; ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      if (digit(at_)) {
        digits += c;
        places += point ? 1 : 0;
      } else if (c == '.' && !point) {
        point = true;
      } else if (c == ',' && !point && Thousands(digits.size())) {
        continue;
      } else {
        break;
      }
    }
    if (digits.empty()) return Bad("a number has no digits");
    int64_t exponent = 0;
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      const bool sign = at_ + 1 < text_.size() && (text_[at_ + 1] == '-' || text_[at_ + 1] == '+');
      size_t end = at_ + 1 + (sign ? 1 : 0);
      if (digit(end)) {
        const bool negative = text_[at_ + 1] == '-';
        for (; digit(end) && exponent < 10000; ++end) exponent = exponent * 10 + (text_[end] - '0');
        if (negative) exponent = -exponent;
        at_ = end;
      }
    }
    int64_t whole = 0;
    if (digits.size() <= 18 && absl::SimpleAtoi(digits, &whole) && std::abs(exponent - places) <= 18) {
      REIN_ASSIGN_OR_RETURN(Number scale, Power(Whole(10), Whole(exponent - places)));
      return Product(Whole(whole), scale);
    }
    double value = 0;
    const int64_t shift = exponent - places;
    if (!absl::SimpleAtod(absl::StrCat(digits, "e", shift), &value)) return Bad("a number is not understood");
    return Inexact(value);
  }

  // Whether the comma at at_ stands between thousands: three digits follow, then no digit; not within max(1,200).
  bool Thousands(size_t before) const {
    if (calls_ > 0 || before == 0 || at_ + 3 >= text_.size()) return false;
    for (size_t i = at_ + 1; i <= at_ + 3; ++i) {
      if (text_[i] < '0' || text_[i] > '9') return false;
    }
    const char next = at_ + 4 < text_.size() ? text_[at_ + 4] : ' ';
    return next < '0' || next > '9';
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  int calls_ = 0;  // open ones: commas separate their numbers
};

std::string Shown(double value) {
  for (int digits = 15; digits <= 17; ++digits) {
    std::string text = absl::StrFormat("%.*g", digits, value);
    double back = 0;
    if (absl::SimpleAtod(text, &back) && back == value) return text;
  }
  return absl::StrFormat("%.17g", value);
}

}  // namespace

absl::StatusOr<std::string> Calculate(std::string_view expression) {
  if (expression.size() > kMaxBytes) {
    return Bad(absl::StrCat("an expression of ", expression.size(), " characters, at most ", kMaxBytes));
  }
  REIN_ASSIGN_OR_RETURN(Number value, Parser(expression).Parse());
  if (value.whole()) return absl::StrCat(value.over);
  if (!std::isfinite(value.Double())) return Bad("the result is no finite number");
  if (!value.exact) return Shown(value.value);
  int64_t under = value.under;
  while (under % 2 == 0) under /= 2;
  while (under % 5 == 0) under /= 5;
  if (under == 1) return Shown(value.Double());  // a finite decimal
  return absl::StrCat(value.over, "/", value.under, " = ", Shown(value.Double()));
}

}  // namespace rein::rollout
