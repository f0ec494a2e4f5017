// The model families under test: the folders of tests/golden/models by name, in order.

#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace rein {

inline std::vector<std::string> GoldenFolders() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/models")) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace rein
