#include "services/reward/tool_programs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/status/status_macros.h"
#include "reward/sandbox/sandbox.h"

namespace rein::services {
namespace {

using reward::sandbox::End;
using reward::sandbox::Outcome;

std::string HowItEnded(const Outcome& outcome) {
  switch (outcome.end) {
    case End::kTooLong:
      return "it took too long";
    case End::kTooLoud:
      return "it printed too much";
    case End::kKilled:
      return absl::StrCat("it was killed by signal ", outcome.code);
    case End::kExited:
      break;
  }
  return outcome.code == 0 ? "" : absl::StrCat("exit status ", outcome.code);
}

}  // namespace

absl::StatusOr<std::string> RunToolProgram(const v1::CodeTool& settings, const std::string& program,
                                           absl::Duration left) {
  REIN_ASSIGN_OR_RETURN(auto sandbox,
                        reward::sandbox::HostSandbox(settings.isolation() == v1::ISOLATION_WEAK));
  reward::sandbox::Program run;
  run.files["main"] = program;
  run.command.assign(settings.command().begin(), settings.command().end());
  if (run.command.empty()) run.command = {"python3", "-I", "-S", "main"};
  if (settings.has_seconds()) run.limits.processor = absl::Seconds(settings.seconds());
  run.limits.wall = std::clamp(left, absl::Milliseconds(100), 2 * run.limits.processor);
  if (settings.has_memory_mb()) run.limits.memory_bytes = uint64_t{settings.memory_mb()} << 20;
  if (settings.has_processes()) run.limits.processes = settings.processes();
  REIN_ASSIGN_OR_RETURN(Outcome outcome, sandbox.Run(run));
  std::string text = outcome.output;
  auto add = [&text](const std::string& more) {
    if (!more.empty()) absl::StrAppend(&text, text.empty() || text.back() == '\n' ? "" : "\n", more);
  };
  const std::string wrong = HowItEnded(outcome);
  if (!wrong.empty()) {
    add(outcome.errors);
    add(absl::StrCat("error: ", wrong));
  }
  if (!outcome.refused.empty()) add(absl::StrCat("refused: ", absl::StrJoin(outcome.refused, ", ")));
  return text;
}

}  // namespace rein::services
