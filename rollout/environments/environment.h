// Environment answers a policy between its turns: what the service of proto/rein/v1/environment.proto does, as a C++
// interface. The built-in tools are one (tool_environment.h); anybody's own is another process behind the same proto.
//
//   reset -> prompt, tools      step(text) -> what is shown next, reward, whether the episode is over
//
// Calls of one episode come one after the other, those of different episodes from several threads.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "rein/v1/environment.pb.h"

namespace rein::rollout {

class Environment {
 public:
  virtual ~Environment() = default;

  // INVALID_ARGUMENT: the settings themselves are wrong. `deadline`: when nobody waits for the answer any more.
  virtual absl::StatusOr<v1::EnvironmentResetReply> Reset(const v1::EnvironmentResetRequest& request,
                                                          absl::Time deadline) = 0;
  // NOT_FOUND when there is no such episode.
  virtual absl::StatusOr<v1::EnvironmentStepReply> Step(const v1::EnvironmentStepRequest& request,
                                                        absl::Time deadline) = 0;
  // The episode is over for the caller.
  virtual void Close(const std::string& episode) = 0;
};

}  // namespace rein::rollout
