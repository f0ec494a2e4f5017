// ParseYaml reads one YAML document into a plain tree that remembers where everything stood.
//
// Hostile input is bounded: at most 1 MiB, 64 levels, 10,000 nodes (aliases counted as often as
// they are used) and 100 aliases. Keys are plain texts and unique within their map.

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace rein::config {

// Position in a file, both from 1; line 0: not from the file.
struct Place {
  int line = 0;
  int column = 0;
};

struct YamlNode;

struct YamlEntry {
  std::string key;
  Place place;                  // of the key
  std::vector<YamlNode> value;  // exactly one
  const YamlNode& node() const { return value.front(); }
  YamlNode& node() { return value.front(); }
};

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  Place place;
  std::string text;     // kScalar
  bool quoted = false;  // kScalar
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;

  YamlEntry* Find(const std::string& key);
};

// INVALID_ARGUMENT with "LINE:COLUMN: what is wrong".
absl::StatusOr<YamlNode> ParseYaml(const std::string& text);

}  // namespace rein::config
