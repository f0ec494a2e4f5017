// Trainer is what the controller knows of the policy trainer; ConnectTrainer gives the one behind
// gRPC.
//
// Calls return at once; `done` comes later, as common/rpc/done.h says. UNAVAILABLE is retried until
// the deadline, except for Publish, whose receivers may have changed meanwhile. Destruction ends
// calls under way with CANCELLED and waits for their callbacks. Thread-safe.

#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"

#include "common/rpc/done.h"
#include "rein/v1/trainer.pb.h"

namespace rein::services {

class Trainer {
 public:
  virtual ~Trainer() = default;

  virtual void Load(const v1::LoadTrainerRequest& request, absl::Duration deadline,
                    rpc::Done<v1::LoadTrainerReply> done) = 0;
  virtual void Update(const v1::UpdateRequest& request, absl::Duration deadline,
                      rpc::Done<v1::UpdateReply> done) = 0;
  virtual void Publish(const v1::PublishRequest& request, absl::Duration deadline,
                       rpc::Done<v1::PublishReply> done) = 0;
  virtual void Save(const v1::SaveRequest& request, absl::Duration deadline,
                    rpc::Done<v1::SaveReply> done) = 0;
  virtual void Score(const v1::ScorePolicyRequest& request, absl::Duration deadline,
                     rpc::Done<v1::ScorePolicyReply> done) = 0;
  virtual void Status(absl::Duration deadline, rpc::Done<v1::TrainerStatusReply> done) = 0;
};

// `address` is host:port.
std::unique_ptr<Trainer> ConnectTrainer(const std::string& address);

}  // namespace rein::services
