// Sandbox runs programs that a model wrote, each in a fresh place that has nothing in it.
//
//   REIN_ASSIGN_OR_RETURN(Sandbox sandbox, Sandbox::Open({}));
//   REIN_ASSIGN_OR_RETURN(Outcome outcome, sandbox.Run(program));
//
// A program runs under `rein-sandbox`, a small launcher beside the service's binary, in user,
// mount, pid, network, ipc, uts and cgroup namespaces of its own: it sees /usr and the libraries
// read-only, a work folder in memory, three harmless devices and no network; it has no
// capabilities, nothing in its environment but PATH and TMPDIR, an allow-list of system calls
// (seccomp), Landlock rules where the kernel has them, and limits of processor time, wall time,
// memory, output, files and processes. When its first process ends, so do all others. System calls
// that were refused are reported by name.
//
// What it prints is compared by the caller: nothing that it should not know ever enters.
// The weak mode has no namespaces: seccomp, Landlock and limits alone, a work folder on the host's
// disk that is removed afterwards, and no bound of its size beside that of each file. It keeps a
// program from the host's files, network and processes as well, as far as the kernel's checks go.
//
// Not bounded: memory of all processes together (use the pod's own limit); what the program costs
// others by its processor time. Thread-safe; a run takes a few milliseconds beside the program
// itself.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace rein::reward::sandbox {

struct Limits {
  absl::Duration processor = absl::Seconds(2);  // of each process
  absl::Duration wall = absl::Seconds(4);
  uint64_t memory_bytes = 512 << 20;  // address space of a process; its files together
  uint64_t output_bytes = 256 << 10;  // standard output and error together
  uint32_t processes = 16;            // threads count too
};

struct Program {
  std::vector<std::string> command;          // looked up in /usr/bin and /bin
  std::map<std::string, std::string> files;  // put into the work folder; names without a slash
  std::string input;                         // standard input
  std::vector<std::string> keep;             // files of the work folder to return
  Limits limits;
};

enum class End {
  kExited,   // `code` is its exit status, which the program chose
  kKilled,   // `code` is the signal
  kTooLong,  // wall time was over
  kTooLoud,  // it printed more than output_bytes
};

struct Outcome {
  End end = End::kExited;
  int code = 0;
  std::string output, errors;                // cut at output_bytes
  std::vector<std::string> refused;          // system calls, each once: socket, ptrace
  std::map<std::string, std::string> files;  // those of `keep` that are plain files
  bool namespaces = true;                    // false: it ran in the weak mode
};

struct SandboxOptions {
  // Run without namespaces where the kernel forbids them; Landlock must be there then.
  bool weak = false;
  // Path of rein-sandbox; empty: $REIN_SANDBOX, else beside this process's binary.
  std::string launcher;
};

class Sandbox {
 public:
  // FAILED_PRECONDITION when this host cannot run programs so, with the reason.
  static absl::StatusOr<Sandbox> Open(const SandboxOptions& options);

  // INVALID_ARGUMENT for a command that does not exist or a name with a slash; INTERNAL when the
  // sandbox itself failed. What the program does is never an error.
  absl::StatusOr<Outcome> Run(const Program& program) const;

 private:
  explicit Sandbox(SandboxOptions options) : options_(std::move(options)) {}

  SandboxOptions options_;
};

// Asked for at every call: whether this host has a sandbox is found out once. `weak`: the weak mode will do.
absl::StatusOr<Sandbox> HostSandbox(bool weak);

}  // namespace rein::reward::sandbox
