#include "reward/math/equivalence.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "reward/math/evaluate.h"
#include "reward/math/interval.h"
#include "reward/math/units.h"

namespace rein::reward::math {
namespace {

constexpr int64_t kSteps = 20'000;
constexpr size_t kMaxElements = 64;
// From a whole number no decimal may be further off, however large it is.
constexpr double kMaxOffWhole = 1e-3;

using Views = std::vector<View>;

// A number with digits behind its point that are not all 0.
bool HasDecimal(View view) {
  return Any(view, [](const Node& node) {
    if (node.kind != Kind::kNumber || absl::StrContains(node.text, '(')) return false;
    size_t point = node.text.find('.');
    return point != std::string::npos &&
           node.text.find_first_not_of('0', point + 1) != std::string::npos;
  });
}

bool HasPlusMinus(View view) {
  return view.sign != 0 &&
         Any(view, [](const Node& node) { return node.kind == Kind::kPlusMinus; });
}

class Comparison {
 public:
  explicit Comparison(const EquivalenceOptions& options) : options_(options), evaluator_(kSteps) {}

  bool Same(View right, View answer) {
    if (!evaluator_.Step()) return false;
    if (std::optional<bool> verdict = SameRelations(right, answer)) return *verdict;
    right = Unnamed(right);
    answer = Unnamed(answer);
    if (std::optional<bool> verdict = SameCollections(right, answer)) return *verdict;
    if (std::optional<bool> verdict = SameTexts(right, answer)) return *verdict;
    return SameQuantities(right, answer);
  }

 private:
  static bool IsEquation(View view) {
    return KindOf(view) == Kind::kRelation &&
           (*view).text.find_first_not_of("= ") == std::string::npos;
  }
  static bool IsMembership(View view) {
    return KindOf(view) == Kind::kRelation && (*view).text == "in";
  }

  // "x = 5" is 5, "x \in S" is S, "2 + 3 = 5" is 5.
  static View Unnamed(View view) {
    while (IsEquation(view) || IsMembership(view)) view = view.Kid((*view).kids.size() - 1);
    return view;
  }

  std::optional<bool> SameRelations(View right, View answer) {
    if (IsInequality(right) || IsInequality(answer)) return SameInequalities(right, answer);
    if (!IsEquation(right) || !IsEquation(answer)) return std::nullopt;
    if ((*right).kids.size() != 2 || (*answer).kids.size() != 2) return std::nullopt;
    const View left = right.Kid(0), other = answer.Kid(0);
    if (KindOf(left) == Kind::kSymbol && KindOf(other) == Kind::kSymbol &&
        (*left).text == (*other).text) {
      return Same(right.Kid(1), answer.Kid(1));
    }
    if (SameZeros(right, answer)) return true;
    if (Same(left, other)) return Same(right.Kid(1), answer.Kid(1));
    return false;
  }

  // (l - r) of both equations: one is a constant multiple of the other.
  bool SameZeros(View right, View answer) {
    std::optional<std::pair<uint64_t, uint64_t>> first;
    for (int point = 0; point < 3; ++point) {
      std::optional<uint64_t> values[4] = {
          evaluator_.Residue(right.Kid(0), point), evaluator_.Residue(right.Kid(1), point),
          evaluator_.Residue(answer.Kid(0), point), evaluator_.Residue(answer.Kid(1), point)};
      for (const auto& value : values) {
        if (!value) return false;
      }
      constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
      const uint64_t a = (*values[0] + kPrime - *values[1]) % kPrime,
                     b = (*values[2] + kPrime - *values[3]) % kPrime;
      if (a == 0 || b == 0) return false;
      if (!first) {
        first = {a, b};
        continue;
      }
      using Wide = unsigned __int128;  // a / b is the same at every point
      if (Wide{a} * first->second % kPrime != Wide{b} * first->first % kPrime) return false;
    }
    return true;
  }

  bool SameInequalities(View right, View answer) {
    if (IsMembership(right)) right = Unnamed(right);
    if (IsMembership(answer)) answer = Unnamed(answer);
    std::optional<Interval> a = ToInterval(right), b = ToInterval(answer);
    if (a && b) {
      auto same_end = [&](const std::optional<View>& x, const std::optional<View>& y, bool x_closed,
                          bool y_closed) {
        if (x.has_value() != y.has_value()) return false;
        return !x || (x_closed == y_closed && Same(*x, *y));
      };
      return same_end(a->low, b->low, a->low_closed, b->low_closed) &&
             same_end(a->high, b->high, a->high_closed, b->high_closed);
    }
    if (KindOf(right) != Kind::kRelation || KindOf(answer) != Kind::kRelation) return false;
    if ((*right).text != (*answer).text || (*right).kids.size() != (*answer).kids.size())
      return false;
    for (size_t i = 0; i < (*right).kids.size(); ++i) {
      if (!Same(right.Kid(i), answer.Kid(i))) return false;
    }
    return true;
  }

  // The elements of what has no order: a list, a set, the values of ±. One value is a list of one.
  static Views Unordered(View view) {
    Views elements;
    if (KindOf(view) == Kind::kList || KindOf(view) == Kind::kSet) {
      for (size_t i = 0; i < (*view).kids.size() && i <= kMaxElements; ++i) {
        AddValues(view.Kid(i), elements);
      }
    } else {
      AddValues(view, elements);
    }
    return elements;
  }

  static void AddValues(View view, Views& values) {
    const View value = Unnamed(view);
    if (HasPlusMinus(value) && KindOf(value) != Kind::kTuple) {
      values.push_back({value.expression, value.node, +1});
      values.push_back({value.expression, value.node, -1});
    } else {
      values.push_back(view);
    }
  }

  static bool IsUnordered(View view) {
    return KindOf(view) == Kind::kList || KindOf(view) == Kind::kSet ||
           (HasPlusMinus(view) && view.sign == 1 && KindOf(view) != Kind::kTuple);
  }

  bool SameInAnyOrder(Views a, Views b) {
    if (a.size() != b.size() || a.size() > kMaxElements) return false;
    for (View element : a) {
      auto found =
          std::find_if(b.begin(), b.end(), [&](View other) { return SameElement(element, other); });
      if (found == b.end()) return false;
      b.erase(found);
    }
    return true;
  }

  // A value whose sign of ± is chosen already is compared as one value.
  bool SameElement(View a, View b) {
    const bool values = KindOf(a) != Kind::kList && KindOf(b) != Kind::kList;
    if (values && (HasPlusMinus(a) || HasPlusMinus(b))) return SameValues(a, b);
    return Same(a, b);
  }

  bool SameInOrder(const Views& a, const Views& b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
      if (!Same(a[i], b[i])) return false;
    }
    return true;
  }

  static Views Kids(View view) {
    Views kids;
    for (size_t i = 0; i < (*view).kids.size(); ++i) kids.push_back(view.Kid(i));
    return kids;
  }

  std::optional<bool> SameCollections(View right, View answer) {
    auto is = [&](View view, Kind kind) { return KindOf(view) == kind; };
    if (is(right, Kind::kMatrix) || is(answer, Kind::kMatrix)) return SameMatrices(right, answer);
    if (is(right, Kind::kTuple) && is(answer, Kind::kTuple)) {
      if ((*right).kids.size() == 2 && (*right).text != (*answer).text) return false;
      return SameInOrder(Kids(right), Kids(answer));
    }
    const bool tuple = is(right, Kind::kTuple) || is(answer, Kind::kTuple);
    const bool list = is(right, Kind::kList) || is(answer, Kind::kList);
    if (tuple && list) {
      const View brackets = is(right, Kind::kTuple) ? right : answer;
      const bool interval = (*brackets).kids.size() == 2 && (*brackets).text != "()";
      return !interval && SameInOrder(Kids(right), Kids(answer));
    }
    if (tuple) return false;
    if (is(right, Kind::kUnion) || is(answer, Kind::kUnion)) {
      if (!is(right, Kind::kUnion) || !is(answer, Kind::kUnion))
        return SameUnionOfOrders(right, answer);
      if ((*right).text != (*answer).text) return false;
      if ((*right).text == "setminus") return SameInOrder(Kids(right), Kids(answer));
      return SameInAnyOrder(Kids(right), Kids(answer));
    }
    if (is(right, Kind::kRatio) || is(answer, Kind::kRatio)) return SameRatios(right, answer);
    if (!IsUnordered(right) && !IsUnordered(answer)) return std::nullopt;
    if (UnionOfOrders(right) || UnionOfOrders(answer))
      return SameInAnyOrder(Kids(right), Kids(answer));
    const bool sets = is(right, Kind::kSet) || is(answer, Kind::kSet);
    Views a = Unordered(right), b = Unordered(answer);
    if (sets && a.size() != b.size()) {
      a = Different(a);
      b = Different(b);
    }
    return SameInAnyOrder(a, b);
  }

  // "x < 1 or x > 2".
  static bool UnionOfOrders(View view) {
    return KindOf(view) == Kind::kList && !(*view).kids.empty() && IsInequality(view.Kid(0));
  }

  bool SameUnionOfOrders(View right, View answer) {
    if (!UnionOfOrders(right) && !UnionOfOrders(answer)) return false;
    return SameInAnyOrder(Kids(right), Kids(answer));
  }

  Views Different(const Views& all) {
    Views different;
    for (View element : all) {
      if (different.size() > kMaxElements) break;
      if (std::none_of(different.begin(), different.end(),
                       [&](View other) { return SameElement(element, other); })) {
        different.push_back(element);
      }
    }
    return different;
  }

  // Rows of a matrix, of a list of lists, or of a vector.
  static std::optional<std::pair<size_t, Views>> Elements(View view) {
    if (KindOf(view) == Kind::kMatrix) {
      return std::make_pair(static_cast<size_t>(std::atoi((*view).text.c_str())), Kids(view));
    }
    if (KindOf(view) != Kind::kTuple) return std::nullopt;
    Views all;
    size_t columns = 0;
    for (View row : Kids(view)) {
      if (KindOf(row) != Kind::kTuple) {
        if (columns != 0) return std::nullopt;
        return std::make_pair(size_t{1}, Kids(view));
      }
      if (columns != 0 && columns != (*row).kids.size()) return std::nullopt;
      columns = (*row).kids.size();
      for (View element : Kids(row)) all.push_back(element);
    }
    return std::make_pair(columns, all);
  }

  bool SameMatrices(View right, View answer) {
    auto a = Elements(right), b = Elements(answer);
    if (!a || !b) return false;
    const bool vectors = (a->first == 1 || a->first == a->second.size()) &&
                         (b->first == 1 || b->first == b->second.size()) &&
                         (KindOf(right) == Kind::kTuple || KindOf(answer) == Kind::kTuple);
    if (!vectors && a->first != b->first) return false;
    return SameInOrder(a->second, b->second);
  }

  bool SameRatios(View right, View answer) {
    if (KindOf(right) == Kind::kRatio && KindOf(answer) == Kind::kRatio) {
      const Views a = Kids(right), b = Kids(answer);
      if (a.size() != b.size()) return false;
      if (SameInOrder(a, b)) return true;
      for (size_t i = 1; i < a.size(); ++i) {  // a_0 / a_i is b_0 / b_i
        auto p = evaluator_.Value(a[0], 0), q = evaluator_.Value(b[i], 0),
             r = evaluator_.Value(b[0], 0), s = evaluator_.Value(a[i], 0);
        if (!p || !q || !r || !s) return false;
        const auto one = p->value * q->value, two = r->value * s->value;
        if (std::abs(one - two) > 1e-12 * std::abs(one)) return false;
      }
      return true;
    }
    const bool first = KindOf(right) == Kind::kRatio;
    const View ratio = first ? right : answer, other = first ? answer : right;
    if ((*ratio).kids.size() != 2 || KindOf(other) == Kind::kText) return false;
    auto a = evaluator_.Value(ratio.Kid(0), 0), b = evaluator_.Value(ratio.Kid(1), 0),
         c = evaluator_.Value(other, 0);
    return a && b && c && std::abs(b->value) > 0 &&
           std::abs(a->value / b->value - c->value) <= 1e-12 * std::abs(c->value);
  }

  std::optional<bool> SameTexts(View right, View answer) {
    const bool a = KindOf(right) == Kind::kText, b = KindOf(answer) == Kind::kText;
    if (!a && !b) return std::nullopt;
    if (a && b) return Words(right) == Words(answer);
    // A short word may have been read as a product.
    const std::string& spelling = (a ? answer : right).expression->spelling;
    return (a ? answer : right).node == (a ? answer : right).expression->root &&
           (*(a ? right : answer)).text == absl::AsciiStrToLower(spelling);
  }

  static std::string Words(View view) {
    std::string words;
    for (char c : (*view).text) {
      if (absl::ascii_isalnum(c) || static_cast<unsigned char>(c) >= 0x80) words += c;
    }
    if (words.size() > 3 && words.back() == 's' && absl::StartsWith(words, "no"))
      words.pop_back();  // no solutions
    return words;
  }

  // A value with what it is measured in.
  struct Measured {
    View value;
    std::optional<Unit> unit = std::nullopt;
    bool percent = false;
  };

  static Measured Measure(View view) {
    Measured measured{view};
    while (true) {
      if (KindOf(measured.value) == Kind::kQuantity) {
        measured.unit = ParseUnit((*measured.value).text);
        if (measured.unit->dimensions.empty() && measured.unit->factor == 1) measured.unit.reset();
      } else if (KindOf(measured.value) == Kind::kPercent) {
        measured.percent = true;
      } else {
        return measured;
      }
      measured.value = measured.value.Kid(0);
    }
  }

  // "1000 m" was read as a product: beside a unit it is a quantity.
  static void TakeLetterUnit(Measured& measured) {
    const View value = measured.value;
    if (measured.unit || KindOf(value) != Kind::kMultiply || KindOf(value.Kid(1)) != Kind::kSymbol)
      return;
    if (HasSymbol(value.Kid(0)) || !IsKnownUnit((*value.Kid(1)).text)) return;
    measured.unit = ParseUnit((*value.Kid(1)).text);
    measured.value = value.Kid(0);
  }

  bool SameQuantities(View right, View answer) {
    Measured a = Measure(right), b = Measure(answer);
    if (a.unit && !a.unit->dimensions.empty()) TakeLetterUnit(b);
    if (b.unit && !b.unit->dimensions.empty()) TakeLetterUnit(a);
    for (Measured* one : {&a, &b}) {  // 2 dozen is a number
      Measured& other = one == &a ? b : a;
      if (one->unit && one->unit->dimensions.empty() && !other.unit) other.unit.emplace();
    }
    if (a.unit.has_value() != b.unit.has_value() && options_.require_units) return false;
    if (a.unit && b.unit) {
      if (a.unit->dimensions != b.unit->dimensions) return false;
      if (a.unit->factor != b.unit->factor) return SameScaled(a, b);
    }
    if (a.percent == b.percent) return SameValues(a.value, b.value);
    return SameValues(a.value, b.value) || SameHundredths(a, b);
  }

  bool SameScaled(const Measured& a, const Measured& b) {
    auto x = evaluator_.Value(a.value, 0), y = evaluator_.Value(b.value, 0);
    if (!x || !y) return false;
    const auto right = x->value * a.unit->factor, answer = y->value * b.unit->factor;
    return std::abs(right - answer) <= std::max(1e-9, options_.tolerance) * std::abs(right);
  }

  // 50% and 0.5.
  bool SameHundredths(const Measured& a, const Measured& b) {
    auto x = evaluator_.Value(a.value, 0), y = evaluator_.Value(b.value, 0);
    if (!x || !y || HasSymbol(a.value) || HasSymbol(b.value)) return false;
    const auto right = a.percent ? x->value / 100.0 : x->value,
               answer = b.percent ? y->value / 100.0 : y->value;
    const bool decimal = HasDecimal(a.value) || HasDecimal(b.value);
    return std::abs(right - answer) <= (decimal ? options_.tolerance : 1e-12) * std::abs(right);
  }

  bool SameValues(View right, View answer) {
    if (IsInfinite(right) || IsInfinite(answer)) {
      return IsInfinite(right) && IsInfinite(answer) &&
             (KindOf(right) == Kind::kNegate) == (KindOf(answer) == Kind::kNegate);
    }
    if (KindOf(right) == Kind::kBased && KindOf(answer) == Kind::kNumber)
      return (*right).text == (*answer).text;
    if (KindOf(answer) == Kind::kBased && KindOf(right) == Kind::kNumber)
      return (*right).text == (*answer).text;
    const bool symbols = HasSymbol(right) || HasSymbol(answer);
    const bool decimal = HasDecimal(right) || HasDecimal(answer);
    auto exact = SameResidues(right, answer, symbols);
    if (exact.has_value() && (*exact || !decimal)) return *exact;
    return SameNumerically(right, answer, symbols, decimal);
  }

  static bool IsWhole(View view) {
    if (KindOf(view) == Kind::kNegate) return IsWhole(view.Kid(0));
    return KindOf(view) == Kind::kNumber && !HasDecimal(view);
  }

  std::optional<bool> SameResidues(View right, View answer, bool symbols) {
    for (int point = 0; point < (symbols ? 3 : 1); ++point) {
      auto a = evaluator_.Residue(right, point);
      auto b = a ? evaluator_.Residue(answer, point) : std::nullopt;
      if (!b) return std::nullopt;
      if (*a != *b) return false;
    }
    return true;
  }

  // At points where the right answer is real, unless it speaks of i: roots and logarithms of
  // negative numbers have branches that an answer does not mean.
  bool SameNumerically(View right, View answer, bool symbols, bool decimal) {
    const bool complex = Any(
        right, [](const Node& node) { return node.kind == Kind::kConstant && node.text == "i"; });
    const bool whole = IsWhole(right) || IsWhole(answer);
    int compared = 0;
    for (int point = 0; point < (symbols ? Evaluator::kPoints : 1); ++point) {
      auto a = evaluator_.Value(right, point);
      if (!a) continue;
      if (symbols && !complex && std::abs(a->value.imag()) > a->error) continue;
      auto b = evaluator_.Value(answer, point);
      if (!b) return false;
      double allowed = 4 * (a->error + b->error);
      if (decimal) {
        const double relative = options_.tolerance * std::abs(a->value);
        allowed = std::max(allowed, whole ? std::min(relative, kMaxOffWhole) : relative);
      }
      if (!(std::abs(a->value - b->value) <= allowed)) return false;
      ++compared;
    }
    return evaluator_.alive() && compared >= (symbols ? 2 : 1);
  }

  const EquivalenceOptions& options_;
  Evaluator evaluator_;
};

}  // namespace

bool SameAnswer(const Expression& right, const Expression& answer,
                const EquivalenceOptions& options) {
  if (!right.spelling.empty() && right.spelling == answer.spelling) return true;
  if (right.root < 0 || answer.root < 0) return false;
  return Comparison(options).Same({&right, right.root}, {&answer, answer.root});
}

}  // namespace rein::reward::math
