// Reference is what the controller knows of the frozen policy; ConnectReference gives the one
// behind gRPC.
//
// Calls return at once; `done` comes later, as common/rpc/done.h says. UNAVAILABLE (and for Score
// RESOURCE_EXHAUSTED) is retried until the deadline. Destruction ends calls under way with
// CANCELLED and waits for their callbacks. Thread-safe.

#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"

#include "common/rpc/done.h"
#include "rein/v1/reference.pb.h"

namespace rein::services {

class Reference {
 public:
  virtual ~Reference() = default;

  virtual void Load(const v1::LoadModelRequest& request, absl::Duration deadline,
                    rpc::Done<v1::LoadModelReply> done) = 0;
  virtual void Score(const v1::ScoreTokensRequest& request, absl::Duration deadline,
                     rpc::Done<v1::ScoreTokensReply> done) = 0;

  virtual void Status(absl::Duration deadline, rpc::Done<v1::ActorStatusReply> done) = 0;
};

// `address` is host:port.
std::unique_ptr<Reference> ConnectReference(const std::string& address);

}  // namespace rein::services
