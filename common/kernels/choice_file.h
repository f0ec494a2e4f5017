// ChoiceFile remembers on disk which algorithm was chosen for each shape of product, so that a process that comes later
// need not try them all again. It is a cache: what cannot be read or written is done without.
//
//   ChoiceFile file(CacheFolder(), "H100-80GB-cublasLt-130100");
//   if (auto algorithm = file.Find("4096 1024 16 0 1")) ...    // still to be verified
//   file.Add("4096 1024 16 0 1", algorithm);
//
// A line holds a key, eight words and a checksum of both; lines are only appended, the last of a key counts, and one that is
// damaged is passed over. Several processes may append to one file. Not thread-safe.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace rein::kernels {

class ChoiceFile {
 public:
  using Algorithm = std::array<uint64_t, 8>;  // cublasLtMatmulAlgo_t; all zero: the plain kernel

  // Reads FOLDER/`name`.choices; an empty folder: nothing is kept. What is no letter, digit or dot in `name` becomes a hyphen.
  ChoiceFile(const std::string& folder, const std::string& name);

  std::optional<Algorithm> Find(const std::string& key) const;
  void Add(const std::string& key, const Algorithm& algorithm);

  const std::string& path() const { return path_; }

 private:
  std::string path_;  // empty: none
  std::map<std::string, Algorithm> choices_;
};

// $REIN_CACHE, else $XDG_CACHE_HOME/rein, else $HOME/.cache/rein; empty without any.
std::string CacheFolder();

}  // namespace rein::kernels
