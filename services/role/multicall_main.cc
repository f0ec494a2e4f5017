// rein-control and rein-roles: several programs in one binary, chosen by the name it is called by.
//
//   rein-trainer --listen ...            through a link named rein-trainer
//   rein-roles rein-trainer --listen ...

#include <cstdio>
#include <iostream>
#include <string_view>

#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

// PROGRAM(rein-trainer,rein_trainer_main) of each: its name, and its main(), which the build renamed (rein_program of
// common/cmake/ReinTargets.cmake).
#define PROGRAM(name, entry) int entry(int argc, char** argv);
REIN_PROGRAMS
#undef PROGRAM

namespace {

struct Program {
  std::string_view name;
  int (*entry)(int, char**);
};

#define PROGRAM(name, entry) {#name, &entry},
constexpr Program kPrograms[] = {REIN_PROGRAMS};
#undef PROGRAM

const Program* Find(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  for (const Program& program : kPrograms) {
    if (name == program.name) return &program;
  }
  return nullptr;
}

// The end of the process, without what exit() runs: threads of gRPC outlive main() and still use OpenSSL, which cleans up at exit.
[[noreturn]] void Leave(int code) {
  std::cout.flush();
  std::fflush(nullptr);
#ifdef __SANITIZE_ADDRESS__
  __lsan_do_leak_check();  // at exit otherwise
#endif
  _exit(code);
}

}  // namespace

int main(int argc, char** argv) {
  if (const Program* program = Find(argv[0])) Leave(program->entry(argc, argv));
  if (argc > 1) {
    if (const Program* program = Find(argv[1])) Leave(program->entry(argc - 1, argv + 1));
  }
  std::fprintf(stderr, "error: %s: call it by the name of a program in it, through a link or as the first argument:", argv[0]);
  for (const Program& program : kPrograms) std::fprintf(stderr, " %s", program.name.data());
  std::fprintf(stderr, "\n");
  return 2;
}
