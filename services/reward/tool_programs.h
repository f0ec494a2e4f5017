// RunToolProgram lets the tools of an environment run programs in the sandbox.

#pragma once

#include "rollout/environments/tool_environment.h"

namespace rein::services {

// What the program printed; where it failed, its last words and how it ended. FAILED_PRECONDITION when this host has no
// sandbox as strong as `settings` want.
absl::StatusOr<std::string> RunToolProgram(const v1::CodeTool& settings, const std::string& program,
                                           absl::Duration left);

}  // namespace rein::services
