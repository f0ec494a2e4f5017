// Rewarder is what the controller knows of a scorer of completions; ConnectRewarder gives the one
// behind gRPC, ours or a user's.
//
// Calls return at once; `done` comes later, as common/rpc/done.h says. UNAVAILABLE and
// RESOURCE_EXHAUSTED are retried until the deadline. Destruction ends calls under way with
// CANCELLED and waits for their callbacks. Thread-safe.

#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"

#include "common/rpc/done.h"
#include "rein/v1/reward.pb.h"

namespace rein::services {

class Rewarder {
 public:
  virtual ~Rewarder() = default;

  virtual void Score(const v1::ScoreRewardsRequest& request, absl::Duration deadline,
                     rpc::Done<v1::ScoreRewardsReply> done) = 0;
};

// `address` is host:port.
std::unique_ptr<Rewarder> ConnectRewarder(const std::string& address);

}  // namespace rein::services
