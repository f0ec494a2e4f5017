// ReferenceSession is what a reference process holds for one job: the frozen policy, where one is used, and the job's
// reward models. Thread-safe.

#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "common/policy/policy_slots.h"
#include "common/sync/clock.h"
#include "common/weights/weight_receiver.h"
#include "rein/v1/debug.pb.h"
#include "rein/v1/reference.pb.h"
#include "services/reference/reward_model.h"

namespace rein::services {

class ReferenceSession {
 public:
  // Builds the policy, whose weights come later, and loads the reward models. `device` is cpu or cuda:N; the clock
  // must outlive the session. Errors as policy::OpenModel() and RewardModel::Open().
  static absl::StatusOr<std::unique_ptr<ReferenceSession>> Open(const v1::LoadModelRequest& request,
                                                                const std::string& device,
                                                                const sync::Clock& clock);

  const std::string& job() const { return job_; }
  // Whether `request` asks for what is loaded already.
  bool IsSameLoad(const v1::LoadModelRequest& request) const;
  v1::LoadModelReply Loaded() const;

  // FAILED_PRECONDITION before the first weights, and without a policy; INVALID_ARGUMENT names the sequence that is
  // wrong.
  absl::StatusOr<v1::ScoreTokensReply> Score(const v1::ScoreTokensRequest& request);

  // FAILED_PRECONDITION before the first weights, and without a policy.
  absl::StatusOr<v1::TraceLayersReply> Trace(const v1::TraceLayersRequest& request);

  // The reward model that was loaded for this rule; null when it was not.
  RewardModel* FindRewardModel(const v1::ModelReward& config) const;

  // Null without a policy.
  weights::WeightReceiver* receiver() { return receiver_.get(); }
  v1::ActorStatusReply Status() const;
  void Close() {}  // a call that is inside ends by itself

 private:
  explicit ReferenceSession(const v1::LoadModelRequest& request);

  void Hold(std::unique_ptr<policy::PolicySlots> slots, const sync::Clock& clock);

  const std::string job_;
  const std::string load_key_;
  std::map<std::string, std::unique_ptr<RewardModel>> reward_models_;  // by serialised config
  std::unique_ptr<policy::PolicySlots> slots_;                         // null without a policy
  std::unique_ptr<weights::WeightReceiver> receiver_;
  std::mutex forward_mutex_;  // held by a forward pass, and by a swap
  mutable std::mutex mutex_;
  std::optional<weights::Version> version_;
  std::atomic<uint32_t> calls_ = 0;
  std::atomic<uint64_t> tokens_ = 0;
};

}  // namespace rein::services
