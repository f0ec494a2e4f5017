#include "reward/math/interval.h"

#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace rein::reward::math {
namespace {

bool IsOrder(absl::string_view sign) { return sign.front() == '<' || sign.front() == '>'; }

std::vector<std::string> Signs(View relation) { return absl::StrSplit((*relation).text, ' '); }
}  // namespace

bool Any(View view, const std::function<bool(const Node&)>& holds) {
  const Node& node = *view;
  if (holds(node)) return true;
  for (size_t i = 0; i < node.kids.size(); ++i) {
    if (Any(view.Kid(i), holds)) return true;
  }
  return false;
}

bool HasSymbol(View view) {
  return Any(view, [](const Node& node) { return node.kind == Kind::kSymbol; });
}

bool IsInequality(View view) {
  if (KindOf(view) != Kind::kRelation) return false;
  for (const std::string& sign : Signs(view)) {
    if (IsOrder(sign)) return true;
  }
  return false;
}

bool IsInfinite(View view) {
  if (KindOf(view) == Kind::kNegate || KindOf(view) == Kind::kAdd) {
    return (*view).kids.size() == 1 && IsInfinite(view.Kid(0));
  }
  return KindOf(view) == Kind::kConstant && (*view).text == "infinity";
}

std::optional<Interval> ToInterval(View view) {
  Interval interval;
  if (KindOf(view) == Kind::kTuple && (*view).kids.size() == 2) {
    interval.low_closed = (*view).text[0] == '[';
    interval.high_closed = (*view).text[1] == ']';
    auto end = [](View at) { return IsInfinite(at) ? std::nullopt : std::optional<View>(at); };
    interval.low = end(view.Kid(0));
    interval.high = end(view.Kid(1));
    return interval;
  }
  if (KindOf(view) != Kind::kRelation) return std::nullopt;
  std::vector<std::string> signs = Signs(view);
  std::optional<size_t> symbol;  // which side the variable is
  for (size_t i = 0; i < (*view).kids.size(); ++i) {
    if (KindOf(view.Kid(i)) == Kind::kSymbol) symbol = i;
  }
  if (!symbol || signs.size() > 2 || (signs.size() == 2 && *symbol != 1)) return std::nullopt;
  for (size_t i = 0; i < signs.size(); ++i) {
    if (!IsOrder(signs[i])) return std::nullopt;
    const bool before = i + 1 == *symbol;  // the bound stands left of the variable
    const View bound = view.Kid(before ? i : i + 1);
    if (HasSymbol(bound)) return std::nullopt;
    const bool low = (signs[i].front() == '<') == before;
    const bool closed = signs[i].size() == 2;
    std::optional<View>& end = low ? interval.low : interval.high;
    if (end) return std::nullopt;
    if (!IsInfinite(bound)) end = bound;
    (low ? interval.low_closed : interval.high_closed) = closed;
  }
  return interval;
}

}  // namespace rein::reward::math
