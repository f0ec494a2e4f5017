// EnvironmentServiceImpl is the gRPC door of a rollout::Environment.

#pragma once

#include "rein/v1/environment.grpc.pb.h"
#include "rollout/environments/environment.h"

namespace rein::services {

// Longest that one call may take, also when its caller set no deadline.
inline constexpr absl::Duration kMaxStepTime = absl::Hours(1);

class EnvironmentServiceImpl final : public v1::EnvironmentService::Service {
 public:
  // `environment` must outlive the service.
  explicit EnvironmentServiceImpl(rollout::Environment& environment) : environment_(environment) {}

  grpc::Status Reset(grpc::ServerContext* context, const v1::EnvironmentResetRequest* request,
                     v1::EnvironmentResetReply* reply) override;
  grpc::Status Step(grpc::ServerContext* context, const v1::EnvironmentStepRequest* request,
                    v1::EnvironmentStepReply* reply) override;
  grpc::Status Close(grpc::ServerContext* context, const v1::EnvironmentCloseRequest* request,
                     v1::EnvironmentCloseReply* reply) override;

 private:
  rollout::Environment& environment_;
};

}  // namespace rein::services
