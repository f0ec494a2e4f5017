// ReferenceServiceImpl is the gRPC door of a ReferenceSession: fences, repeats, metrics. RewardModelServiceImpl is the
// door of its reward models.

#pragma once

#include <memory>
#include <string>

#include "common/weights/weight_receiver.h"
#include "rein/v1/reference.grpc.pb.h"
#include "rein/v1/reward.grpc.pb.h"
#include "services/reference/reference_session.h"
#include "services/role/service_deps.h"
#include "services/role/session_slot.h"

namespace rein::services {

class ReferenceServiceImpl final : public v1::ReferenceService::Service {
 public:
  // `device` is cpu or cuda:N.
  ReferenceServiceImpl(std::string device, const ServiceDeps& deps);

  grpc::Status Load(grpc::ServerContext* context, const v1::LoadModelRequest* request,
                    v1::LoadModelReply* reply) override;
  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreTokensRequest* request,
                     v1::ScoreTokensReply* reply) override;
  grpc::Status Status(grpc::ServerContext* context, const v1::ActorStatusRequest* request,
                      v1::ActorStatusReply* reply) override;

  // FAILED_PRECONDITION when another job is loaded, and before the first weights.
  absl::StatusOr<v1::TraceLayersReply> Trace(const v1::TraceLayersRequest& request);

  // Where this process stands.
  v1::ActorStatusReply Standing() const { return slot_.Status(); }
  // Of the loaded model; null before one is loaded. For WeightServiceImpl.
  std::shared_ptr<weights::WeightReceiver> receiver() const { return slot_.receiver(); }
  // Null before the first Load.
  std::shared_ptr<ReferenceSession> session() const { return slot_.get(); }

 private:
  absl::StatusOr<v1::LoadModelReply> Open(const v1::LoadModelRequest& request);
  absl::StatusOr<v1::ScoreTokensReply> ScoreOnce(const v1::ScoreTokensRequest& request);

  const std::string device_;
  const ServiceDeps deps_;
  telemetry::Counter scored_, refused_, tokens_;
  telemetry::Histogram duration_;
  SessionSlot<ReferenceSession> slot_;
};

// RewardService for the `model` rules of the job that is loaded.
class RewardModelServiceImpl final : public v1::RewardService::Service {
 public:
  // `reference` must outlive the service.
  RewardModelServiceImpl(const ReferenceServiceImpl& reference, const ServiceDeps& deps);

  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRewardsRequest* request,
                     v1::ScoreRewardsReply* reply) override;

 private:
  const ReferenceServiceImpl& reference_;
  const ServiceDeps deps_;
  telemetry::Counter items_;
  telemetry::Histogram duration_;
};

}  // namespace rein::services
