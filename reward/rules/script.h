// ScriptShare: which share of a text's letters is of one Unicode script.
//
// The language consistency reward of DeepSeek-R1 (arXiv 2501.12948, section 2.3.2) for languages
// that differ in script; by letters, since not every script separates words.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "re2/re2.h"

namespace rein::reward {

class Script {
 public:
  // By its name in Unicode: Latin, Han, Cyrillic. INVALID_ARGUMENT for an unknown one.
  static absl::StatusOr<Script> Create(const std::string& name);

  // In [0, 1]; 1 for a text without letters. Linear in the text.
  double Share(absl::string_view text) const;

 private:
  explicit Script(std::shared_ptr<const RE2> runs) : runs_(std::move(runs)) {}

  std::shared_ptr<const RE2> runs_;
};

}  // namespace rein::reward
