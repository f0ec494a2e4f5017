// EnvironmentClient is what the controller knows of an environment; ConnectEnvironment gives the one behind gRPC, ours
// or a user's.
//
// Calls return at once; `done` comes later, as common/rpc/done.h says. Reset is retried while UNAVAILABLE, until its
// deadline; Step is not: it may have happened. Destruction ends calls under way with CANCELLED and waits for their
// callbacks. Thread-safe.

#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"

#include "common/rpc/done.h"
#include "rein/v1/environment.pb.h"

namespace rein::services {

class EnvironmentClient {
 public:
  virtual ~EnvironmentClient() = default;

  virtual void Reset(const v1::EnvironmentResetRequest& request, absl::Duration deadline,
                     rpc::Done<v1::EnvironmentResetReply> done) = 0;
  virtual void Step(const v1::EnvironmentStepRequest& request, absl::Duration deadline,
                    rpc::Done<v1::EnvironmentStepReply> done) = 0;
  // Nobody waits for the answer.
  virtual void Close(const v1::EnvironmentCloseRequest& request, absl::Duration deadline) = 0;
};

// `address` is host:port.
std::unique_ptr<EnvironmentClient> ConnectEnvironment(const std::string& address);

}  // namespace rein::services
