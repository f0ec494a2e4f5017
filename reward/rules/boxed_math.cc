#include "reward/rules/boxed_math.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "re2/re2.h"

#include "reward/math/extract_answer.h"
#include "reward/rules/number.h"

namespace rein::reward {
namespace {

// Longer contents are compared as they stand.
constexpr size_t kMaxNormalizedBytes = 64 << 10;

// Index behind the brace that closes the one at `open`; npos when none does.
size_t CloseBrace(absl::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;  // an escaped brace is no brace
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return absl::string_view::npos;
}

// \text{ cm} and the like at the end name a unit; elsewhere only the content counts.
void UnwrapText(std::string& text) {
  for (const char* command : {"\\text{", "\\mbox{", "\\textbf{", "\\mathrm{", "\\operatorname{"}) {
    const size_t length = absl::string_view(command).size();
    for (size_t at = text.find(command); at != std::string::npos; at = text.find(command, at)) {
      size_t end = CloseBrace(text, at + length - 1);
      if (end == std::string::npos) return;
      bool unit = at > 0 && end == text.size() && text[at + length] == ' ';
      std::string content = unit ? "" : text.substr(at + length, end - at - length - 1);
      text.replace(at, end - at, content);
    }
  }
}

// \frac12 -> \frac{1}{2}, \sqrt3 -> \sqrt{3}.
void BraceArguments(std::string& text) {
  static const RE2 frac_digits(R"(\\frac([0-9a-zA-Z])([0-9a-zA-Z]))");
  static const RE2 frac_first(R"(\\frac([0-9a-zA-Z])\{)");
  static const RE2 frac_second(R"((\\frac\{[^{}]*\})([0-9a-zA-Z]))");
  static const RE2 root(R"(\\sqrt([0-9a-zA-Z]))");
  RE2::GlobalReplace(&text, frac_digits, R"(\\frac{\1}{\2})");
  RE2::GlobalReplace(&text, frac_first, R"(\\frac{\1}{)");
  RE2::GlobalReplace(&text, frac_second, R"(\1{\2})");
  RE2::GlobalReplace(&text, root, R"(\\sqrt{\1})");
}

// The value of a number, or of \frac{a}{b} of whole numbers.
std::optional<Number> NumberOf(const std::string& math) {
  static const RE2 fraction(R"((-?)\\frac\{(-?)(\d+)\}\{(\d+)\})");
  std::string sign, inner_sign, numerator, denominator;
  std::string plain = math;
  if (RE2::FullMatch(math, fraction, &sign, &inner_sign, &numerator, &denominator)) {
    plain = absl::StrCat(sign == inner_sign ? "" : "-", numerator, "/", denominator);
  }
  std::optional<Number> number = LastNumber(plain);
  if (!number.has_value() || number->begin != 0 || number->end != plain.size()) return std::nullopt;
  return number;
}

}  // namespace

std::string NormalizeMath(absl::string_view input) {
  if (input.size() > kMaxNormalizedBytes) return std::string(input);
  std::string text(absl::StripAsciiWhitespace(input));
  UnwrapText(text);
  text = absl::StrReplaceAll(text, {{"\\!", ""},
                                    {"\\,", ""},
                                    {"\\;", ""},
                                    {"\\:", ""},
                                    {"\\ ", ""},
                                    {"\\left", ""},
                                    {"\\right", ""},
                                    {"\\displaystyle", ""},
                                    {"\\$", ""},
                                    {"$", ""},
                                    {"\\%", ""},
                                    {"%", ""},
                                    {"^{\\circ}", ""},
                                    {"^\\circ", ""},
                                    {"\\degree", ""},
                                    {"\\dfrac", "\\frac"},
                                    {"\\tfrac", "\\frac"},
                                    {"\\cfrac", "\\frac"},
                                    {"\\\\", "\\"},
                                    {"\xE2\x88\x92", "-"},
                                    {"\\{", "{"},
                                    {"\\}", "}"},
                                    {" ", ""},
                                    {"\n", ""},
                                    {"\t", ""},
                                    {"\\cdot", "*"},
                                    {"\\times", "*"}});
  static const RE2 name(R"(^[a-zA-Z]=)");
  static const RE2 whole_fraction(R"(^(-?)(\d+)/(\d+)$)");
  static const RE2 bare_point(R"((^|[^0-9])\.(\d))");
  RE2::Replace(&text, name, "");
  if (NumberOf(text).has_value())
    text.erase(std::remove(text.begin(), text.end(), ','), text.end());
  RE2::GlobalReplace(&text, bare_point, R"(\10.\2)");
  RE2::Replace(&text, whole_fraction, R"(\1\\frac{\2}{\3})");
  BraceArguments(text);
  while (!text.empty() && (text.back() == '.' || text.back() == ',')) text.pop_back();
  return text;
}

absl::StatusOr<double> BoxedMath(absl::string_view completion, absl::string_view answer) {
  std::optional<std::string> boxed = math::LastBoxed(completion);
  if (!boxed.has_value()) return 0.0;
  std::optional<std::string> boxed_answer = math::LastBoxed(answer);
  std::string actual = NormalizeMath(*boxed);
  std::string wanted = NormalizeMath(boxed_answer.has_value() ? *boxed_answer : answer);
  if (wanted.empty()) return absl::InvalidArgumentError("the answer is empty");
  if (actual == wanted) return 1.0;
  std::optional<Number> actual_number = NumberOf(actual);
  std::optional<Number> wanted_number = NumberOf(wanted);
  if (!actual_number.has_value() || !wanted_number.has_value()) return 0.0;
  return SameNumber(*actual_number, *wanted_number, /*tolerance=*/1e-9) ? 1.0 : 0.0;
}

}  // namespace rein::reward
