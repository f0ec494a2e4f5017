#include "common/config/nearest_name.h"

#include <algorithm>
#include <cctype>

namespace rein::config {
namespace {

constexpr size_t kLongestName = 256;

std::string Folded(const std::string& name) {
  std::string folded;
  for (char c : name.substr(0, kLongestName)) {
    if (c != '_' && c != '-')
      folded += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return folded;
}

// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
size_t TypingErrors(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      size_t replaced = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string NearestName(const std::string& name, const std::vector<std::string>& candidates) {
  const std::string wanted = Folded(name);
  std::string best;
  size_t best_errors = std::max<size_t>(1, wanted.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::string folded = Folded(candidate);
    size_t errors = TypingErrors(wanted, folded);
    bool starts = wanted.size() >= 3 && folded.substr(0, wanted.size()) == wanted;
    if (starts) errors = std::min<size_t>(errors, 1);
    if (errors < best_errors) {
      best_errors = errors;
      best = candidate;
    }
  }
  return best;
}

}  // namespace rein::config
