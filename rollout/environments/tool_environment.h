// ToolEnvironment runs the tools that a policy calls and shows it what they say; a turn that calls none is the final
// answer and ends the episode.
//
//   ToolEnvironment environment(run_program);
//   REIN_ASSIGN_OR_RETURN(auto begin, environment.Reset(request, deadline));    // begin.tools(): schemas
//   REIN_ASSIGN_OR_RETURN(auto next, environment.Step(turn, deadline));         // next.messages(): role tool
//
// What is wrong with a call (no such tool, wrong arguments, a program that fails) is told to the policy, never an error
// of the episode. Keeps nothing between calls, so any replica can take any step. Thread-safe.

#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "rollout/environments/environment.h"

namespace rein::rollout {

// Runs a Python program in a sandbox; what it printed, or how it failed, as text for the policy. An error is one of the
// sandbox itself: the step fails with it. `left`: the time until nobody waits any more.
using ProgramRunner = std::function<absl::StatusOr<std::string>(
    const v1::CodeTool& settings, const std::string& program, absl::Duration left)>;

class ToolEnvironment final : public Environment {
 public:
  explicit ToolEnvironment(ProgramRunner run_program) : run_program_(std::move(run_program)) {}

  absl::StatusOr<v1::EnvironmentResetReply> Reset(const v1::EnvironmentResetRequest& request,
                                                  absl::Time deadline) override;
  absl::StatusOr<v1::EnvironmentStepReply> Step(const v1::EnvironmentStepRequest& request,
                                                absl::Time deadline) override;
  void Close(const std::string&) override {}

 private:
  ProgramRunner run_program_;
};

}  // namespace rein::rollout
