#include "common/kernels/choice_file.h"

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace rein::kernels {
namespace {

constexpr uintmax_t kLargestFile = 4 << 20;  // thousands of shapes

// FNV-1a, 64 bits.
uint64_t Checksum(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

// "KEY|w0 w1 ... w7|checksum"
std::string LineOf(const std::string& key, const ChoiceFile::Algorithm& algorithm) {
  std::string text = absl::StrCat(key, "|");
  for (uint64_t word : algorithm) absl::StrAppend(&text, absl::Hex(word), " ");
  return absl::StrCat(text, "|", absl::Hex(Checksum(text)));
}

std::optional<std::pair<std::string, ChoiceFile::Algorithm>> ReadLine(const std::string& line) {
  const std::vector<std::string> parts = absl::StrSplit(line, '|');
  if (parts.size() != 3) return std::nullopt;
  const std::vector<std::string> words = absl::StrSplit(parts[1], ' ', absl::SkipEmpty());
  ChoiceFile::Algorithm algorithm;
  if (words.size() != algorithm.size()) return std::nullopt;
  for (size_t i = 0; i < words.size(); ++i) {
    if (!absl::SimpleHexAtoi(words[i], &algorithm[i])) return std::nullopt;
  }
  if (line != LineOf(parts[0], algorithm)) return std::nullopt;
  return std::pair(parts[0], algorithm);
}

}  // namespace

std::string CacheFolder() {
  if (const char* own = std::getenv("REIN_CACHE")) return own;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != 0) return absl::StrCat(cache, "/rein");
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != 0) return absl::StrCat(home, "/.cache/rein");
  return "";
}

ChoiceFile::ChoiceFile(const std::string& folder, const std::string& name) {
  if (folder.empty()) return;
  std::string safe = name;
  for (char& c : safe) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.') c = '-';
  }
  path_ = absl::StrCat(folder, "/", safe, ".choices");
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path_, error);
  if (error || size > kLargestFile) return;
  std::ifstream file(path_);
  for (std::string line; std::getline(file, line);) {
    if (auto choice = ReadLine(line)) choices_[choice->first] = choice->second;
  }
}

std::optional<ChoiceFile::Algorithm> ChoiceFile::Find(const std::string& key) const {
  auto found = choices_.find(key);
  if (found == choices_.end()) return std::nullopt;
  return found->second;
}

void ChoiceFile::Add(const std::string& key, const Algorithm& algorithm) {
  choices_[key] = algorithm;
  if (path_.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);
  if (std::filesystem::file_size(path_, error) > kLargestFile && !error) return;
  std::ofstream(path_, std::ios::app) << absl::StrCat(LineOf(key, algorithm), "\n") << std::flush;
}

}  // namespace rein::kernels
