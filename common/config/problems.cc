#include "common/config/problems.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace rein::config {
namespace {

constexpr size_t kMostShown = 50;

std::string Padded(std::string text, size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

}  // namespace

void Problems::Add(Place place, const std::string& key, const std::string& text) {
  all_.push_back({.place = place, .key = key, .text = text});
}

std::string Problems::Where(const Place& place, const std::string& file_name) const {
  if (place.line > 0) return absl::StrCat(file_name, ":", place.line, ":", place.column);
  size_t index = static_cast<size_t>(place.column);
  if (index >= 1 && index <= overrides_.size()) return overrides_[index - 1];
  return file_name;
}

std::string Problems::Report(const std::string& file_name) const {
  std::vector<Problem> sorted = all_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    // Overrides come after the file.
    return std::make_tuple(a.place.line == 0, a.place.line, a.place.column) <
           std::make_tuple(b.place.line == 0, b.place.line, b.place.column);
  });
  size_t left_out = sorted.size() > kMostShown ? sorted.size() - kMostShown : 0;
  sorted.resize(sorted.size() - left_out);
  size_t where_width = 0, key_width = 0;
  for (const Problem& problem : sorted) {
    where_width = std::max(where_width, Where(problem.place, file_name).size());
    key_width = std::max(key_width, problem.key.size());
  }
  std::string report =
      absl::StrCat(file_name, " has ", all_.size(), all_.size() == 1 ? " problem" : " problems");
  for (const Problem& problem : sorted) {
    absl::StrAppend(&report, "\n  ", Padded(Where(problem.place, file_name), where_width + 2),
                    Padded(problem.key, key_width + 2), problem.text);
  }
  if (left_out > 0) absl::StrAppend(&report, "\n  … and ", left_out, " more");
  return report;
}

}  // namespace rein::config
