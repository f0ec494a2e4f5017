// The command line of `rein`: every command with its flags, on top of the *_commands of this folder.

#pragma once

namespace rein::cli {

// Returns the exit code (exit_code.h).
int RunCommandLine(int argc, char** argv);

}  // namespace rein::cli
