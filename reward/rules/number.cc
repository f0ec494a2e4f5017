#include "reward/rules/number.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace rein::reward {
namespace {

constexpr absl::string_view kUnicodeMinus = "\xE2\x88\x92";

bool DigitAt(absl::string_view text, size_t i) {
  return i < text.size() && absl::ascii_isdigit(text[i]);
}

size_t SkipDigits(absl::string_view text, size_t i) {
  while (DigitAt(text, i)) ++i;
  return i;
}

// End of whole digits with commas between groups of three.
size_t SkipGroupedDigits(absl::string_view text, size_t begin) {
  size_t end = SkipDigits(text, begin);
  if (end - begin > 3) return end;
  while (end < text.size() && text[end] == ',' && SkipDigits(text, end + 1) == end + 4) end += 4;
  return end;
}

// An unsigned number that starts at `begin`, which holds a digit or a point before a digit.
Number ParseUnsigned(absl::string_view text, size_t begin) {
  size_t whole_end = SkipGroupedDigits(text, begin);
  size_t end = whole_end;
  if (end < text.size() && text[end] == '.' && DigitAt(text, end + 1)) {
    end = SkipDigits(text, end + 1);
  }
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    size_t digits = end + 1;
    if (digits < text.size() && (text[digits] == '-' || text[digits] == '+')) ++digits;
    if (DigitAt(text, digits)) end = SkipDigits(text, digits);
  }
  std::string plain(text.substr(begin, end - begin));
  plain.erase(std::remove(plain.begin(), plain.end(), ','), plain.end());
  Number number;
  number.begin = begin;
  number.end = end;
  (void)absl::SimpleAtod(plain, &number.value);  // infinite when it is out of range
  if (end == whole_end) {
    number.integer = plain.substr(std::min(plain.find_first_not_of('0'), plain.size() - 1));
  }
  return number;
}

// Length of the sign that ends right before `begin`, 0 when there is none.
size_t SignLength(absl::string_view text, size_t begin, size_t previous_end) {
  size_t length = 0;
  if (begin >= 1 && text[begin - 1] == '-') length = 1;
  if (begin >= kUnicodeMinus.size() &&
      text.substr(begin - kUnicodeMinus.size(), kUnicodeMinus.size()) == kUnicodeMinus) {
    length = kUnicodeMinus.size();
  }
  if (length == 0 || begin - length < previous_end) return 0;
  if (begin == length) return length;
  char before = text[begin - length - 1];
  return absl::ascii_isalnum(before) || before == ')' || before == ']' ? 0 : length;
}

void Negate(Number& number) {
  number.value = -number.value;
  if (!number.integer.empty() && number.integer != "0") {
    number.integer = absl::StrCat("-", number.integer);
  }
}

// Joins "3" and "/4" into a fraction, when no further slash follows.
void TakeDenominator(absl::string_view text, Number& number) {
  if (number.integer.empty() || number.end >= text.size() || text[number.end] != '/') return;
  size_t begin = number.end + 1;
  if (!DigitAt(text, begin)) return;
  Number denominator = ParseUnsigned(text, begin);
  bool chain = denominator.end < text.size() && text[denominator.end] == '/';
  if (chain || denominator.integer.empty() || denominator.value == 0) return;
  number.value /= denominator.value;
  number.integer.clear();
  number.end = denominator.end;
}

}  // namespace

std::optional<Number> LastNumber(absl::string_view text) {
  std::optional<Number> last;
  size_t previous_end = 0;
  bool after_slash = false;  // inside a chain such as 1/2/2020
  for (size_t i = 0; i < text.size();) {
    bool starts = DigitAt(text, i) || (text[i] == '.' && DigitAt(text, i + 1));
    if (!starts) {
      ++i;
      continue;
    }
    Number number = ParseUnsigned(text, i);
    after_slash = i == previous_end + 1 && last.has_value() && text[i - 1] == '/';
    if (!after_slash) TakeDenominator(text, number);
    size_t sign = SignLength(text, i, previous_end);
    if (sign > 0) Negate(number);
    number.begin -= sign;
    i = previous_end = number.end;
    last = std::move(number);
  }
  return last;
}

bool SameNumber(const Number& actual, const Number& wanted, double tolerance) {
  if (!actual.integer.empty() && !wanted.integer.empty()) return actual.integer == wanted.integer;
  if (!std::isfinite(actual.value) || !std::isfinite(wanted.value)) return false;
  return std::abs(actual.value - wanted.value) <= tolerance * std::max(1.0, std::abs(wanted.value));
}

}  // namespace rein::reward
