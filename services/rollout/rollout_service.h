// RolloutServiceImpl is the gRPC door of a RolloutSession: fences, repeats, and the stream of
// finished siblings.

#pragma once

#include <memory>
#include <functional>
#include <string>

#include "common/weights/weight_receiver.h"
#include "rein/v1/rollout.grpc.pb.h"
#include "services/role/service_deps.h"
#include "services/role/session_slot.h"
#include "services/rollout/rollout_session.h"

namespace rein::services {

class RolloutServiceImpl final
    : public v1::RolloutService::WithCallbackMethod_Generate<v1::RolloutService::Service> {
 public:
  // `device` is cpu or cuda:N.
  RolloutServiceImpl(std::string device, const ServiceDeps& deps)
      : device_(std::move(device)), deps_(deps) {}

  grpc::Status Load(grpc::ServerContext* context, const v1::LoadModelRequest* request,
                    v1::LoadModelReply* reply) override;
  grpc::ServerWriteReactor<v1::GenerateReply>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::Status Abort(grpc::ServerContext* context, const v1::AbortGenerateRequest* request,
                     v1::AbortGenerateReply* reply) override;
  grpc::Status Pause(grpc::ServerContext* context, const v1::PauseRequest* request,
                     v1::PauseReply* reply) override;
  grpc::Status Resume(grpc::ServerContext* context, const v1::ResumeRequest* request,
                      v1::ResumeReply* reply) override;
  grpc::Status Status(grpc::ServerContext* context, const v1::ActorStatusRequest* request,
                      v1::ActorStatusReply* reply) override;

  // FAILED_PRECONDITION when another job is loaded, and before the first weights.
  absl::StatusOr<v1::TraceLayersReply> Trace(const v1::TraceLayersRequest& request);

  // Where this process stands.
  v1::ActorStatusReply Standing() const { return slot_.Status(); }
  // Of the loaded model; null before one is loaded. For WeightServiceImpl.
  std::shared_ptr<weights::WeightReceiver> receiver() const { return slot_.receiver(); }
  // What is loaded; null before.
  std::shared_ptr<RolloutSession> session() const { return slot_.get(); }
  // A new incarnation: what was begun under the old one ends with FINISH_REASON_ABORT.
  void DropRequests();

 private:
  // Of the job that the fence names.
  absl::StatusOr<std::shared_ptr<RolloutSession>> Admit(const v1::Fence& fence);
  absl::StatusOr<v1::LoadModelReply> Open(const v1::LoadModelRequest& request);
  template <typename Request, typename Reply>
  grpc::Status Mutate(const Request& request, Reply* reply,
                      const std::function<Reply(rollout::Engine&)>& work);

  const std::string device_;
  const ServiceDeps deps_;
  SessionSlot<RolloutSession> slot_;
};

}  // namespace rein::services
