// ConfigReader reads a config.json and remembers what was read, so that a key that would change the maths and
// that nobody asked for is an error.
//
//   ConfigReader config(json);
//   spec.model_dim = config.Count("hidden_size");
//   if (config.Flag("attention_bias", false)) ...
//   REIN_RETURN_IF_ERROR(config.status());    // everything that was wrong, and every key left over
//
// A key may be given as several names: the first that is there is read, and an error speaks of the first.

#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace rein::models {

class ConfigReader {
 public:
  using Names = std::vector<const char*>;

  explicit ConfigReader(const nlohmann::json& config, std::string within = "")
      : config_(config), within_(std::move(within)) {}

  // The value, or null when it is absent or null.
  const nlohmann::json* Find(const Names& names);
  bool Has(const Names& names) { return Find(names) != nullptr; }

  // A whole number from 1 to 2^24; an error when it is absent and fallback is 0.
  int64_t Count(const Names& names, int64_t fallback = 0);
  int64_t Count(const char* name, int64_t fallback = 0) { return Count(Names{name}, fallback); }
  // Above 0.
  double Positive(const Names& names, double fallback);
  double Positive(const char* name, double fallback) { return Positive(Names{name}, fallback); }
  double Number(const char* name, double fallback);
  bool Flag(const char* name, bool fallback);
  std::string Text(const char* name, const std::string& fallback);
  std::vector<double> Numbers(const char* name);
  std::vector<std::string> Texts(const char* name);

  // Known, and without effect on what is computed here.
  void Ignore(std::initializer_list<const char*> names);
  // An error unless the value is absent, null or `wanted`.
  void Only(const char* name, const nlohmann::json& wanted);
  void Error(absl::string_view name, absl::string_view what);
  // Takes over the errors of a reader of one of its objects, and of keys left over there.
  void Merge(ConfigReader& inner);

  absl::Status status();

 private:
  std::string Place(absl::string_view name) const;
  void ReportUnread();

  const nlohmann::json& config_;
  std::string within_;  // such as "rope_scaling"
  std::set<std::string> read_;
  std::vector<std::string> problems_;
};

}  // namespace rein::models
