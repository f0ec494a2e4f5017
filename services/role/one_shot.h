// What the modes without a service have in common: `rein-rollout generate`, `rein-reference score`.
//
//   CLI::App app("Completes the prompts of a JSONL file", "rein-rollout generate");
//   OneShotFlags flags;
//   AddOneShotFlags(app, flags);
//   return RunOneShot(app, argc, argv, [&] { return Run(flags); });

#pragma once

#include <fstream>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace CLI {
class App;
}  // namespace CLI

namespace rein::services {

struct OneShotFlags {
  std::string model;   // Hugging Face folder
  std::string input;   // JSONL
  std::string output;  // JSONL
  std::string dtype;   // empty: what suits the device
  std::string device = "cpu";
  int threads = 0;  // 0: one per core
  double temperature = 1.0;
};

void AddOneShotFlags(CLI::App& app, OneShotFlags& flags);

// Reads the flags and calls `run`. The exit code: 0, 2 wrong flags, 3 wrong input, else 1. An error goes
// to standard error.
int RunOneShot(CLI::App& app, int argc, char** argv, const std::function<absl::Status()>& run);

// Lines of the output file.
class OutputLines {
 public:
  // INVALID_ARGUMENT when it cannot be made. `append`: behind what it holds.
  static absl::StatusOr<OutputLines> Create(const std::string& path, bool append = false);

  void Add(const std::string& line) { file_ << line << "\n"; }
  // Both: RESOURCE_EXHAUSTED when not all could be written.
  absl::Status Flush();
  absl::Status Close();

 private:
  OutputLines(std::string path, std::ofstream file)
      : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  std::ofstream file_;
};

}  // namespace rein::services
