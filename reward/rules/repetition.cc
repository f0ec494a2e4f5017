#include "reward/rules/repetition.h"

#include <map>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

namespace rein::reward {
namespace {

// Exact: runs are compared id by id, n log n times at most.
double Repetition(const std::vector<uint32_t>& ids, uint32_t ngram) {
  if (ids.size() < ngram) return 0;
  const size_t runs = ids.size() - ngram + 1;
  auto before = [&](size_t a, size_t b) {
    for (uint32_t i = 0; i < ngram; ++i) {
      if (ids[a + i] != ids[b + i]) return ids[a + i] < ids[b + i];
    }
    return false;
  };
  std::set<size_t, decltype(before)> different(before);
  for (size_t i = 0; i < runs; ++i) different.insert(i);
  return static_cast<double>(different.size()) / static_cast<double>(runs) - 1;
}

}  // namespace

double WordRepetition(absl::string_view text, uint32_t ngram) {
  std::map<std::string, uint32_t> known;
  std::vector<uint32_t> ids;
  for (absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(" \t\n\r\f\v"), absl::SkipEmpty())) {
    ids.push_back(known.emplace(absl::AsciiStrToLower(word), known.size()).first->second);
  }
  return Repetition(ids, ngram);
}

double TokenRepetition(const std::vector<uint32_t>& token_ids, uint32_t ngram) {
  return Repetition(token_ids, ngram);
}

}  // namespace rein::reward
