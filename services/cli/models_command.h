// `rein models`: hands over to `rein-reference models`, which lies beside this program.

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace rein::cli {

// Does not come back unless the program cannot be started. Returns the exit code.
int RunModels(const std::vector<std::string>& arguments);

// Writes an adapter folder and its base as one model.
absl::Status MergeAdapter(const std::string& adapter, const std::string& to);

}  // namespace rein::cli
