// ScoreCommand is `rein-reference score`: log-probs of the sequences of a JSONL file, without any
// service; prints their loss and perplexity.

#pragma once

namespace rein::services {

// Arguments after the program's name, "score" first. Returns the exit code: 0, 2 for wrong flags, 3
// for wrong input, else 1.
int ScoreCommand(int argc, char** argv);

}  // namespace rein::services
