#include "reward/rules/script.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace rein::reward {
namespace {

size_t CodePoints(re2::StringPiece text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

absl::StatusOr<Script> Script::Create(const std::string& name) {
  RE2::Options options;
  options.set_log_errors(false);
  auto runs = std::make_shared<RE2>(absl::StrCat("(\\p{", name, "}+)"), options);
  // One and two letters are general categories, such as Lu.
  const bool word = name.size() > 2 && name != "Any" &&
                    std::all_of(name.begin(), name.end(),
                                [](char c) { return absl::ascii_isalpha(c) || c == '_'; });
  if (!word || !runs->ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name, "' is no Unicode script, such as Latin, Han, Cyrillic"));
  }
  return Script(std::move(runs));
}

double Script::Share(absl::string_view text) const {
  static const RE2 letters("(\\pL+)");
  size_t all = 0, ours = 0;
  re2::StringPiece rest(text.data(), text.size()), run, part;
  while (RE2::FindAndConsume(&rest, letters, &run)) {
    all += CodePoints(run);
    while (RE2::FindAndConsume(&run, *runs_, &part)) ours += CodePoints(part);
  }
  return all == 0 ? 1 : static_cast<double>(ours) / static_cast<double>(all);
}

}  // namespace rein::reward
