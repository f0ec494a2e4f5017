#include "reward/math/evaluate.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"

namespace rein::reward::math {
namespace {

using Complex = std::complex<double>;
using Residue = std::optional<uint64_t>;
using Approx = std::optional<Approximate>;

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
constexpr int64_t kMaxExponent = 10'000;
constexpr int64_t kMaxFactorial = 1'000;
constexpr double kRounding = 4e-16;
constexpr double kPi = 3.14159265358979323846;
constexpr double kEuler = 2.71828182845904523536;

// 2^61 is 1 modulo the prime, so the high bits are added to the low ones.
uint64_t Multiply(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  const uint64_t sum =
      static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> 61);
  return sum >= kPrime ? sum - kPrime : sum;
}
uint64_t Add(uint64_t a, uint64_t b) { return (a + b) % kPrime; }
uint64_t Negate(uint64_t a) { return a == 0 ? 0 : kPrime - a; }

uint64_t Power(uint64_t base, uint64_t exponent) {
  uint64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result = Multiply(result, base);
    base = Multiply(base, base);
  }
  return result;
}

Residue Inverse(uint64_t a) {
  if (a == 0) return std::nullopt;
  return Power(a, kPrime - 2);
}

// A fixed random number for a name: the same in every process.
uint64_t Draw(const std::string& name, int point) {
  uint64_t state = 0x9E3779B97F4A7C15u * static_cast<uint64_t>(point + 1);
  for (char c : name) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  state ^= state >> 30;
  state *= 0xBF58476D1CE4E5B9u;
  state ^= state >> 27;
  state *= 0x94D049BB133111EBu;
  return state ^ (state >> 31);
}

double PointOf(const std::string& name, int point) {
  const uint64_t draw = Draw(name, point);
  const double size = 0.3 + 2.4 * static_cast<double>(draw >> 11) / 9007199254740992.0;
  return point >= 3 && (draw & 1) ? -size : size;
}

uint64_t DigitsResidue(absl::string_view digits) {
  uint64_t value = 0;
  for (char c : digits) value = Add(Multiply(value, 10), static_cast<uint64_t>(c - '0'));
  return value;
}

// "12.34(56)": whole.fraction(repeating).
struct Parts {
  std::string whole, fraction, repeating;
};

Parts Split(const std::string& number) {
  Parts parts;
  std::string* into = &parts.whole;
  for (char c : number) {
    if (c == '.')
      into = &parts.fraction;
    else if (c == '(')
      into = &parts.repeating;
    else if (c != ')')
      *into += c;
  }
  return parts;
}

Residue NumberResidue(const std::string& number) {
  Parts parts = Split(number);
  const uint64_t scale = Power(10, parts.fraction.size());
  uint64_t value = DigitsResidue(parts.whole + parts.fraction);
  if (!parts.repeating.empty()) {
    Residue nines = Inverse(Add(Power(10, parts.repeating.size()), kPrime - 1));
    if (!nines) return std::nullopt;
    value = Add(value, Multiply(DigitsResidue(parts.repeating), *nines));
  }
  return Multiply(value, *Inverse(scale));
}

double NumberValue(const std::string& number) {
  Parts parts = Split(number);
  std::string text = parts.whole + "." + parts.fraction;
  while (!parts.repeating.empty() && text.size() < 40) text += parts.repeating;
  double value = 0;
  (void)absl::SimpleAtod(text, &value);
  return value;
}

std::optional<uint64_t> InBase(const std::string& digits, int64_t base, bool residue) {
  uint64_t value = 0;
  if (base < 2 || base > 36) return std::nullopt;
  for (char c : digits) {
    if (!absl::ascii_isdigit(c) || c - '0' >= base) return std::nullopt;
    value = residue
                ? Add(Multiply(value, static_cast<uint64_t>(base)), static_cast<uint64_t>(c - '0'))
                : value * static_cast<uint64_t>(base) + static_cast<uint64_t>(c - '0');
  }
  return value;
}

// The whole number that a node is, sign included; nullopt for others and large ones.
std::optional<int64_t> WholeNumber(View view) {
  const Node& node = *view;
  if (node.kind == Kind::kNegate) {
    std::optional<int64_t> inner = WholeNumber(view.Kid(0));
    return inner ? std::optional<int64_t>(-*inner) : std::nullopt;
  }
  int64_t value = 0;
  if (node.kind != Kind::kNumber || !absl::SimpleAtoi(node.text, &value)) return std::nullopt;
  return value;
}

Residue ResiduePower(Residue base, std::optional<int64_t> exponent) {
  if (!base || !exponent || std::abs(*exponent) > kMaxExponent) return std::nullopt;
  if (*exponent < 0) {
    base = Inverse(*base);
    if (!base) return std::nullopt;
  }
  if (*base == 0 && *exponent == 0) return std::nullopt;
  return Power(*base, static_cast<uint64_t>(std::abs(*exponent)));
}

Approx Checked(Complex value, double error) {
  if (!std::isfinite(value.real()) || !std::isfinite(value.imag()) || !std::isfinite(error))
    return std::nullopt;
  return Approximate{value, error + kRounding * std::abs(value)};
}

// f(x) of an inexact x, `slope` a bound of |f'| near x.
Approx Through(Complex value, const Approximate& x, double slope) {
  return Checked(value, slope * x.error + 4 * kRounding * std::abs(value));
}

Approx Raise(const Approximate& base, const Approximate& exponent) {
  if (base.value == Complex(0)) {
    if (exponent.value.real() <= 0) return std::nullopt;
    return Approximate{0, std::pow(base.error, exponent.value.real())};
  }
  Complex value;
  const double whole = std::round(exponent.value.real());
  if (exponent.value == Complex(whole) && std::abs(whole) <= 1024) {
    value = std::pow(base.value, static_cast<int>(whole));
    if (base.value.imag() == 0) value = std::pow(base.value.real(), whole);
  } else if (base.value.imag() == 0 && base.value.real() > 0 && exponent.value.imag() == 0) {
    value = std::pow(base.value.real(), exponent.value.real());
  } else {
    value = std::pow(base.value, exponent.value);
  }
  const double size = std::abs(value);
  const double relative = std::abs(exponent.value) * base.error / std::abs(base.value) +
                          std::abs(std::log(base.value)) * exponent.error + 16 * kRounding;
  return Checked(value, size * relative);
}

// The n-th root; of a negative number with odd n the real one.
Approx Root(const Approximate& x, double degree) {
  if (degree == 0) return std::nullopt;
  const bool odd = std::fmod(std::abs(degree), 2) == 1;
  if (x.value == Complex(0)) return Approximate{0, std::pow(x.error, 1 / degree)};
  Complex value = x.value.imag() == 0 && x.value.real() < 0 && odd
                      ? Complex(-std::pow(-x.value.real(), 1 / degree))
                  : x.value.imag() == 0 && x.value.real() > 0
                      ? Complex(std::pow(x.value.real(), 1 / degree))
                  : degree == 2 ? std::sqrt(x.value)
                                : std::pow(x.value, 1 / degree);
  return Through(value, x, std::abs(value) / std::abs(degree) / std::abs(x.value));
}

Approx Factorial(const Approximate& x) {
  const double real = x.value.real();
  if (real > 170 || (real < 0 && std::abs(real - std::round(real)) < 1e-6)) return std::nullopt;
  const double value = std::tgamma(real + 1);
  return Checked(value, std::abs(value) * (1e-13 + (2 + std::abs(real)) * x.error));
}

// A product where k is whole, factorials else.
Approx Binomial(const Approximate& n, const Approximate& k) {
  const double top = n.value.real(), bottom = std::round(k.value.real());
  if (std::abs(bottom - k.value.real()) <= k.error && std::abs(bottom) <= kMaxFactorial) {
    double value = bottom < 0 ? 0 : 1;
    for (double i = 0; i < bottom; ++i) value *= (top - i) / (i + 1);
    return Checked(value, std::abs(value) * (1e-13 + 10 * bottom * (n.error + kRounding)));
  }
  Approx above = Factorial(n), below = Factorial(k);
  Approx rest = Factorial({n.value - k.value, n.error + k.error});
  if (!above || !below || !rest) return std::nullopt;
  const Complex value = above->value / (below->value * rest->value);
  return Checked(value, std::abs(value) * (above->error / std::abs(above->value) +
                                           below->error / std::abs(below->value) +
                                           rest->error / std::abs(rest->value)));
}

}  // namespace

std::optional<uint64_t> Evaluator::Residue(View view, int point) {
  if (!Step()) return std::nullopt;
  const Node& node = *view;
  auto kid = [&](size_t i) { return Residue(view.Kid(i), point); };
  switch (node.kind) {
    case Kind::kNumber:
      return NumberResidue(node.text);
    case Kind::kConstant:
      if (node.text == "i" || node.text == "infinity") return std::nullopt;
      return Draw(node.text, point) % kPrime;
    case Kind::kSymbol:
      return Draw(node.text, point) % kPrime;
    case Kind::kAdd: {
      uint64_t sum = 0;
      for (size_t i = 0; i < node.kids.size(); ++i) {
        auto term = kid(i);
        if (!term) return std::nullopt;
        sum = Add(sum, *term);
      }
      return sum;
    }
    case Kind::kMultiply:
    case Kind::kDivide: {
      auto left = kid(0), right = left ? kid(1) : std::nullopt;
      if (right && node.kind == Kind::kDivide) right = Inverse(*right);
      if (!right) return std::nullopt;
      return Multiply(*left, *right);
    }
    case Kind::kNegate:
    case Kind::kPlusMinus: {
      auto inner = kid(0);
      if (!inner) return std::nullopt;
      return node.kind == Kind::kNegate || view.sign < 0 ? Negate(*inner) : *inner;
    }
    case Kind::kPower:
      return ResiduePower(kid(0), WholeNumber(view.Kid(1)));
    case Kind::kPercent: {
      auto inner = kid(0);
      if (!inner) return std::nullopt;
      return Multiply(*inner, *Inverse(100));
    }
    case Kind::kBased:
      return InBase(node.text, WholeNumber(view.Kid(0)).value_or(0), /*residue=*/true);
    case Kind::kCall:
      return ResidueOfCall(view, point);
    default:
      return std::nullopt;
  }
}

std::optional<uint64_t> Evaluator::ResidueOfCall(View view, int point) {
  const Node& node = *view;
  if (node.text == "factorial") {
    std::optional<int64_t> n = WholeNumber(view.Kid(0));
    if (!n || *n < 0 || *n > kMaxFactorial) return std::nullopt;
    steps_ -= *n / 16;
    uint64_t product = 1;
    for (int64_t i = 2; i <= *n; ++i) product = Multiply(product, static_cast<uint64_t>(i));
    return product;
  }
  if (node.text == "binomial") {
    std::optional<int64_t> n = WholeNumber(view.Kid(0)), k = WholeNumber(view.Kid(1));
    if (!n || !k || *k < 0 || *n < *k || *k > kMaxFactorial) return std::nullopt;
    steps_ -= *k / 4;
    uint64_t product = 1;
    for (int64_t i = 0; i < *k; ++i) {
      product = Multiply(product, static_cast<uint64_t>(*n - i) % kPrime);
      product = Multiply(product, *Inverse(static_cast<uint64_t>(i + 1)));
    }
    return product;
  }
  (void)point;
  return std::nullopt;
}

std::optional<Approximate> Evaluator::Value(View view, int point) {
  if (!Step()) return std::nullopt;
  const Node& node = *view;
  auto kid = [&](size_t i) { return Value(view.Kid(i), point); };
  switch (node.kind) {
    case Kind::kNumber:
      return Checked(NumberValue(node.text), 0);
    case Kind::kConstant:
      if (node.text == "i") return Approximate{Complex(0, 1), 0};
      if (node.text == "infinity") return std::nullopt;
      return Checked(node.text == "pi" ? kPi : kEuler, 0);
    case Kind::kSymbol:
      return Approximate{PointOf(node.text, point), 0};
    case Kind::kAdd: {
      Complex sum = 0;
      double error = 0;
      for (size_t i = 0; i < node.kids.size(); ++i) {
        auto term = kid(i);
        if (!term) return std::nullopt;
        sum += term->value;
        error += term->error + kRounding * std::abs(sum);
      }
      return Checked(sum, error);
    }
    case Kind::kMultiply: {
      auto a = kid(0), b = a ? kid(1) : std::nullopt;
      if (!b) return std::nullopt;
      return Checked(a->value * b->value, std::abs(a->value) * b->error +
                                              std::abs(b->value) * a->error + a->error * b->error);
    }
    case Kind::kDivide: {
      auto a = kid(0), b = a ? kid(1) : std::nullopt;
      if (!b || std::abs(b->value) <= b->error) return std::nullopt;
      const double size = std::abs(b->value);
      return Checked(a->value / b->value,
                     a->error / size + std::abs(a->value) * b->error / (size * size));
    }
    case Kind::kNegate:
    case Kind::kPlusMinus: {
      auto inner = kid(0);
      if (inner && (node.kind == Kind::kNegate || view.sign < 0)) inner->value = -inner->value;
      return inner;
    }
    case Kind::kPower: {
      auto base = kid(0), exponent = base ? kid(1) : std::nullopt;
      if (!exponent) return std::nullopt;
      return Raise(*base, *exponent);
    }
    case Kind::kPercent: {
      auto inner = kid(0);
      if (!inner) return std::nullopt;
      return Checked(inner->value / 100.0, inner->error / 100);
    }
    case Kind::kQuantity: {
      auto inner = kid(0);
      if (!inner || node.text != "degree") return std::nullopt;
      return Checked(inner->value * (kPi / 180), inner->error);
    }
    case Kind::kBased: {
      auto value = node.text.size() <= 10
                       ? InBase(node.text, WholeNumber(view.Kid(0)).value_or(0), false)
                       : std::nullopt;
      if (!value) return std::nullopt;
      return Checked(static_cast<double>(*value), 0);
    }
    case Kind::kCall:
      return ValueOfCall(view, point);
    default:
      return std::nullopt;
  }
}

std::optional<Approximate> Evaluator::ValueOfCall(View view, int point) {
  const Node& node = *view;
  const std::string& name = node.text;
  Approx x = Value(view.Kid(0), point);
  if (!x) return std::nullopt;
  const Complex z = x->value;
  const double real = z.real();
  const bool is_real = std::abs(z.imag()) <= x->error;
  if (name == "sqrt") return Root(*x, 2);
  if (name == "cbrt") return Root(*x, 3);
  if (name == "root") {
    Approx degree = Value(view.Kid(1), point);
    if (!degree || degree->value.imag() != 0) return std::nullopt;
    return Root(*x, degree->value.real());
  }
  if (name == "log" || name == "ln" || name == "lg") {
    if (std::abs(z) <= x->error) return std::nullopt;
    Approx natural = Through(std::log(z), *x, 1 / std::abs(z));
    if (name == "ln" || !natural) return natural;
    Complex base = 10.0;
    if (node.kids.size() > 1) {
      Approx given = Value(view.Kid(1), point);
      if (!given || given->value == Complex(0) || given->value == Complex(1)) return std::nullopt;
      base = given->value;
    }
    const Complex scale = std::log(base);
    return Checked(natural->value / scale, natural->error / std::abs(scale) +
                                               8 * kRounding * std::abs(natural->value / scale));
  }
  if (name == "exp") return Through(std::exp(z), *x, std::abs(std::exp(z)));
  const double reach = std::cosh(std::min(std::abs(z.imag()), 300.0));
  if (name == "sin") return Through(std::sin(z), *x, reach);
  if (name == "cos") return Through(std::cos(z), *x, reach);
  if (name == "tan" || name == "cot" || name == "sec" || name == "csc") {
    const Complex below = name == "tan" || name == "sec" ? std::cos(z) : std::sin(z);
    const double gap = std::abs(below);
    if (gap <= 4 * (x->error + kRounding)) return std::nullopt;
    const Complex above = name == "tan" ? std::sin(z) : name == "cot" ? std::cos(z) : Complex(1);
    return Through(above / below, *x, reach / (gap * gap));
  }
  if (name == "sinh") return Through(std::sinh(z), *x, std::abs(std::cosh(z)));
  if (name == "cosh") return Through(std::cosh(z), *x, std::abs(std::sinh(z)));
  if (name == "tanh") return Through(std::tanh(z), *x, 1 + std::norm(std::tanh(z)));
  if (name == "arcsin" || name == "asin" || name == "arccos" || name == "acos") {
    const bool sine = name == "arcsin" || name == "asin";
    const double gap = std::sqrt(std::abs(1.0 - z * z));
    return Through(sine ? std::asin(z) : std::acos(z), *x, 1 / std::max(gap, 1e-8));
  }
  if (name == "arctan" || name == "atan")
    return Through(std::atan(z), *x, 1 / std::max(std::abs(1.0 + z * z), 1e-8));
  if (name == "abs") return Checked(std::abs(z), x->error);
  if ((name == "floor" || name == "ceil") && is_real) {
    const double near = std::round(real);
    const double whole = std::abs(real - near) <= 2 * x->error ? near
                         : name == "floor"                     ? std::floor(real)
                                                               : std::ceil(real);
    return Approximate{whole, 0};
  }
  // By the gamma function, which n! = n (n - 1)! also holds for.
  if (name == "factorial" && is_real) return Factorial({real, x->error});
  if (name == "binomial" && is_real) {
    Approx k = Value(view.Kid(1), point);
    return k && std::abs(k->value.imag()) <= k->error ? Binomial(*x, *k) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace rein::reward::math
