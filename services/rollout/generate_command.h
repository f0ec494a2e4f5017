// GenerateCommand is `rein-rollout generate`: completes the prompts of a JSONL file without any
// service.

#pragma once

namespace rein::services {

// Arguments after the program's name, "generate" first. Returns the exit code: 0, 2 for wrong
// flags, 3 for wrong input, else 1.
int GenerateCommand(int argc, char** argv);

}  // namespace rein::services
