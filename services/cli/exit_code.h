// The exit codes of `rein`; scripts and Kubernetes rules may rely on them.

#pragma once

#include "absl/status/status.h"

#include "rein/v1/controller.pb.h"

namespace rein::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;   // the operation, or the job that was waited for
inline constexpr int kExitUsage = 2;    // wrong flags
inline constexpr int kExitInvalid = 3;  // wrong input: do not try again
inline constexpr int kExitNotFound = 4;
inline constexpr int kExitConflict = 5;  // exists already, or not possible in this state
inline constexpr int kExitForbidden = 6;
inline constexpr int kExitUnavailable = 7;  // no server, or it was too slow
inline constexpr int kExitCancelled = 8;    // the job that was waited for
inline constexpr int kExitTimeout = 124;    // of `wait --timeout`

int ExitCodeOf(const absl::Status& status);
int ExitCodeOf(v1::JobState state);

}  // namespace rein::cli
