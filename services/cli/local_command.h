// `rein up` and `rein down`: the services of this machine.

#pragma once

#include "services/cli/supervisor.h"

namespace rein::cli {

// `foreground`: stay until SIGINT or SIGTERM; else come back once everything is up. Exit code.
int RunUp(LocalOptions options, bool foreground);
// Checks what it would start, and starts nothing.
int RunUpCheck(LocalOptions options);
int RunDown();

// The folder that this program lies in.
std::string ProgramFolder();

}  // namespace rein::cli
