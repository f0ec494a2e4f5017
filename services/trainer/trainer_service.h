// TrainerServiceImpl is the gRPC door of a TrainerSession: fences, repeats, one call at a time, metrics.

#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "common/rpc/fence_guard.h"
#include "common/rpc/reply_cache.h"
#include "common/telemetry/log.h"
#include "common/telemetry/metrics.h"
#include "rein/v1/trainer.grpc.pb.h"
#include "services/trainer/peer_client.h"
#include "services/trainer/trainer_session.h"

namespace rein::services {

class TrainerServiceImpl final : public v1::TrainerService::Service {
 public:
  // `device` is cpu or cuda:N; `peers` are the other ranks, known to rank 0 only. References must outlive
  // the service.
  TrainerServiceImpl(std::string device, parallel::Rendezvous ranks, PeerRanks peers,
                     rpc::FenceGuard& fence, rpc::ReplyCache& replies,
                     telemetry::Metrics& metrics, telemetry::Log& log);

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

  // Where the trainer stands, also while a call is running.
  v1::TrainerStatusReply Standing() const;

 private:
  // Admits, does the work once per request id on the loaded session, and notes where it stands.
  template <typename Request, typename Reply>
  grpc::Status Mutate(const Request& request, Reply* reply, const char* phase,
                      absl::StatusOr<Reply> (TrainerSession::*work)(const Request&));
  absl::StatusOr<v1::LoadTrainerReply> LoadSession(const v1::LoadTrainerRequest& request);
  void NoteStanding(const std::string& request_id);
  void Observe(const v1::UpdateReply& reply);

  const std::string device_;
  const parallel::Rendezvous ranks_;
  const PeerRanks peers_;
  rpc::FenceGuard& fence_;
  rpc::ReplyCache& replies_;
  telemetry::Metrics& metrics_;
  telemetry::Log& log_;

  std::mutex session_mutex_;  // held for the whole of a call
  std::unique_ptr<TrainerSession> session_;

  mutable std::mutex standing_mutex_;
  v1::TrainerStatusReply standing_;
};

}  // namespace rein::services
