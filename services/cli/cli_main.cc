// rein: the command line.

#include "services/cli/command_line.h"

int main(int argc, char** argv) { return rein::cli::RunCommandLine(argc, argv); }
