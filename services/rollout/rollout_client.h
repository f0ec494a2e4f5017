// Generator is what the controller knows of a rollout service; ConnectGenerator gives the one
// behind gRPC.
//
// Calls return at once; `done` comes later, as common/rpc/done.h says. Load is retried while
// UNAVAILABLE, until its deadline; Generate is not: the caller knows which siblings have come and
// asks for the others. Destruction ends calls under way with CANCELLED and waits for their
// callbacks. Thread-safe.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"

#include "common/rpc/done.h"
#include "rein/v1/rollout.pb.h"

namespace rein::services {

class Generator {
 public:
  virtual ~Generator() = default;

  virtual void Load(const v1::LoadModelRequest& request, absl::Duration deadline,
                    rpc::Done<v1::LoadModelReply> done) = 0;

  // `on_rollout` is called for each sibling as it finishes, one at a time; then `done` once, OK
  // when all have come.
  virtual void Generate(const v1::GenerateRequest& request, absl::Duration deadline,
                        std::function<void(v1::Rollout)> on_rollout,
                        std::function<void(absl::Status)> done) = 0;

  virtual void Abort(const v1::AbortGenerateRequest& request, absl::Duration deadline,
                     rpc::Done<v1::AbortGenerateReply> done) = 0;

  virtual void Status(absl::Duration deadline, rpc::Done<v1::ActorStatusReply> done) = 0;
};

// `address` is host:port.
std::unique_ptr<Generator> ConnectGenerator(const std::string& address);

}  // namespace rein::services
