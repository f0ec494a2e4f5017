// TrainerServiceImpl is the gRPC door of a TrainerSession: fences, repeats, one call at a time, metrics.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "rein/v1/trainer.grpc.pb.h"
#include "services/role/service_deps.h"
#include "services/trainer/peer_client.h"
#include "services/trainer/trainer_session.h"

namespace rein::services {

// The other ranks that train with this one.
struct TrainerRanks {
  std::vector<std::string> peers;  // rank 0: host:port of ranks 1, 2, ...; empty: none
  std::string host = "127.0.0.1";  // rank 0: what the others reach it by
  absl::Duration timeout = absl::Minutes(5);  // for joining, and for each collective
  uint32_t rank = 0;  // what this process was started as; 0: it leads, or follows as whatever rank it is called
};

class TrainerServiceImpl final : public v1::TrainerService::Service {
 public:
  // `device` is cpu or cuda:N.
  TrainerServiceImpl(std::string device, TrainerRanks ranks, const ServiceDeps& deps);

  grpc::Status Load(grpc::ServerContext* context, const v1::LoadTrainerRequest* request,
                    v1::LoadTrainerReply* reply) override;
  grpc::Status Update(grpc::ServerContext* context, const v1::UpdateRequest* request,
                      v1::UpdateReply* reply) override;
  grpc::Status ForwardBackward(grpc::ServerContext* context,
                               const v1::ForwardBackwardRequest* request,
                               v1::ForwardBackwardReply* reply) override;
  grpc::Status OptimStep(grpc::ServerContext* context, const v1::OptimStepRequest* request,
                         v1::OptimStepReply* reply) override;
  grpc::Status Publish(grpc::ServerContext* context, const v1::PublishRequest* request,
                       v1::PublishReply* reply) override;
  grpc::Status Save(grpc::ServerContext* context, const v1::SaveRequest* request,
                    v1::SaveReply* reply) override;
  grpc::Status Score(grpc::ServerContext* context, const v1::ScorePolicyRequest* request,
                     v1::ScorePolicyReply* reply) override;
  grpc::Status Status(grpc::ServerContext* context, const v1::TrainerStatusRequest* request,
                      v1::TrainerStatusReply* reply) override;

  // Of the loaded job; waits for a call that is running.
  absl::StatusOr<v1::TraceLayersReply> Trace(const v1::TraceLayersRequest& request);

  // Where the trainer stands, also while a call is running.
  v1::TrainerStatusReply Standing() const;

 private:
  // Admits, does the work once per request id on the loaded session, and notes where it stands.
  template <typename Request, typename Reply>
  grpc::Status Mutate(const Request& request, Reply* reply, const char* phase,
                      absl::StatusOr<Reply> (TrainerSession::*work)(const Request&));
  // The same call on the other ranks and here; their errors count.
  template <typename Request, typename Reply>
  absl::StatusOr<Reply> OnAllRanks(const Request& request,
                                   absl::StatusOr<Reply> (TrainerSession::*work)(const Request&));
  // INVALID_ARGUMENT for a call that means another rank: trying again does not help.
  absl::Status CheckRank(const v1::LoadTrainerRequest& request) const;
  absl::StatusOr<v1::LoadTrainerReply> LoadSession(const v1::LoadTrainerRequest& request);
  absl::StatusOr<std::unique_ptr<TrainerSession>> Open(const v1::LoadTrainerRequest& request);
  void NoteFailure(const char* phase, const absl::Status& status);
  void NoteStanding(const std::string& request_id);
  void Observe(const v1::UpdateReply& reply);

  const std::string device_;
  const TrainerRanks ranks_;
  const PeerRanks peers_;
  const ServiceDeps deps_;

  std::mutex session_mutex_;  // held for the whole of a call
  std::unique_ptr<TrainerSession> session_;

  mutable std::mutex standing_mutex_;
  v1::TrainerStatusReply standing_;
};

}  // namespace rein::services
