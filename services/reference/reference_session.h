// ReferenceSession is the frozen policy that a reference process holds for one job. Thread-safe.

#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "common/policy/policy_slots.h"
#include "common/sync/clock.h"
#include "common/weights/weight_receiver.h"
#include "rein/v1/reference.pb.h"

namespace rein::services {

class ReferenceSession {
 public:
  // Builds the model; the weights come later. `device` is cpu or cuda:N; the clock must outlive the
  // session. Errors as policy::OpenModel().
  static absl::StatusOr<std::unique_ptr<ReferenceSession>> Open(const v1::LoadModelRequest& request,
                                                                const std::string& device,
                                                                const sync::Clock& clock);

  const std::string& job() const { return job_; }
  // Whether `request` asks for what is loaded already.
  bool IsSameLoad(const v1::LoadModelRequest& request) const;
  v1::LoadModelReply Loaded() const;

  // FAILED_PRECONDITION before the first weights; INVALID_ARGUMENT names the sequence that is
  // wrong.
  absl::StatusOr<v1::ScoreTokensReply> Score(const v1::ScoreTokensRequest& request);

  weights::WeightReceiver& receiver() { return receiver_; }
  v1::ActorStatusReply Status() const;
  void Close() {}  // a call that is inside ends by itself

 private:
  ReferenceSession(const v1::LoadModelRequest& request, std::unique_ptr<policy::PolicySlots> slots,
                   const sync::Clock& clock);

  const std::string job_;
  const std::string load_key_;
  std::unique_ptr<policy::PolicySlots> slots_;
  weights::WeightReceiver receiver_;
  std::mutex forward_mutex_;  // held by a forward pass, and by a swap
  mutable std::mutex mutex_;
  std::optional<weights::Version> version_;
  std::atomic<uint32_t> calls_ = 0;
  std::atomic<uint64_t> tokens_ = 0;
};

}  // namespace rein::services
