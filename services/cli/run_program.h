// Runs another program to its end: no shell between, so nothing in an argument is more than an argument.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace rein::cli {

struct ProgramResult {
  int exit_code = 0;   // 128 + signal for a signal
  std::string output;  // standard output, when it was captured
};

// The first of `command` is looked for on the PATH. `input` goes to its standard input. NOT_FOUND when there is no
// such program. Without `capture` its output goes to ours.
absl::StatusOr<ProgramResult> RunProgram(const std::vector<std::string>& command, const std::string& input,
                                         bool capture);

}  // namespace rein::cli
