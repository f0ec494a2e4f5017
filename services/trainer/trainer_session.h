// TrainerSession is the job that a trainer process holds: the PolicyTrainer, its version and lineage, and
// what a caller must know to go on after a crash.
//
//   REIN_ASSIGN_OR_RETURN(auto session, TrainerSession::Open(request, "cpu"));
//   REIN_ASSIGN_OR_RETURN(v1::UpdateReply reply, session->Update(update_request));
//
// Methods take and give protocol messages; fences and repeats are the service's business. Not thread-safe.

#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/parallel/process_group.h"
#include "common/weights/channel/weight_channel.h"
#include "rein/v1/debug.pb.h"
#include "rein/v1/trainer.pb.h"
#include "trainer/policy_trainer.h"

namespace rein::services {

class TrainerSession {
 public:
  // Loads or makes the model, or restores a checkpoint. `device` is cpu or cuda:N, `group` this rank's
  // place among those that train as one.
  static absl::StatusOr<std::unique_ptr<TrainerSession>> Open(
      const v1::LoadTrainerRequest& request, const std::string& device,
      std::unique_ptr<parallel::ProcessGroup> group = parallel::SingleProcess());

  v1::LoadTrainerReply Loaded() const;
  // FAILED_PRECONDITION unless `request` is the next update, or the last one again.
  absl::StatusOr<v1::UpdateReply> Update(const v1::UpdateRequest& request);
  absl::StatusOr<v1::ForwardBackwardReply> ForwardBackward(
      const v1::ForwardBackwardRequest& request);
  absl::StatusOr<v1::OptimStepReply> OptimStep(const v1::OptimStepRequest& request);
  // FAILED_PRECONDITION unless `request.version` is the current one.
  absl::StatusOr<v1::PublishReply> Publish(const v1::PublishRequest& request);
  absl::StatusOr<v1::SaveReply> Save(const v1::SaveRequest& request);
  absl::StatusOr<v1::ScorePolicyReply> Score(const v1::ScorePolicyRequest& request);
  absl::StatusOr<v1::TraceLayersReply> Trace(const v1::TraceLayersRequest& request);

  const std::string& job() const { return job_; }
  // Whether `request` asks for what is already loaded and untouched.
  bool IsSameLoad(const v1::LoadTrainerRequest& request) const;
  v1::PolicyVersion version() const;
  uint64_t digest() const;

 private:
  TrainerSession() = default;
  // Computes the digests of the current weights.
  absl::Status Digest();

  std::string job_, load_key_, tokenizer_folder_;
  uint64_t lineage_ = 0;
  std::string controller_state_;
  std::unique_ptr<parallel::ProcessGroup> group_;
  std::unique_ptr<trainer::PolicyTrainer> trainer_;
  std::unique_ptr<weights::WeightChannel> grpc_channel_, nccl_channel_;
  std::unique_ptr<weights::WeightChannel> ipc_channel_;
  std::set<std::string> apart_;  // receivers nearby that could not map this GPU's memory
  std::vector<uint64_t> digests_;
  v1::UpdateReply last_update_;  // answered again on a repeat
};

}  // namespace rein::services
