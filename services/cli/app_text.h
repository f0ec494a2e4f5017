// Text about the commands themselves, made by walking the tree of CLI::App: completion scripts and manual pages.

#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace CLI {
class App;
}  // namespace CLI

namespace rein::cli {

// For bash, zsh or fish; INVALID_ARGUMENT for another shell. Names of jobs are completed by asking `rein get jobs`.
absl::StatusOr<std::string> CompletionScript(const CLI::App& app, const std::string& shell);

// By file name: rein.1 and rein-COMMAND.1, in roff.
std::map<std::string, std::string> ManualPages(const CLI::App& app);

}  // namespace rein::cli
