// ModelsCommand is `rein-reference models`: what model folders hold, without any service.
//
//   rein-reference models list
//   rein-reference models inspect PATH
//   rein-reference models verify FOLDER
//   rein-reference models diff FOLDER FOLDER
//   rein-reference models merge ADAPTER --to FOLDER
//   rein-reference models upcycle FOLDER --to FOLDER --experts 8
//   rein-reference models import FILE.gguf --to FOLDER
//   rein-reference models export FOLDER --to FILE.gguf
//   rein-reference models estimate PATH --job rl --length 4096

#pragma once

namespace rein::services {

// Arguments after the program's name, "models" first. Prints JSON. Returns the exit code: 0, 1 when two folders
// differ, 2 for wrong flags, 3 for wrong input.
int ModelsCommand(int argc, char** argv);

}  // namespace rein::services
