#include "services/environment/environment_service.h"

#include <algorithm>

#include "absl/time/clock.h"

#include "common/rpc/grpc_status.h"

namespace rein::services {
namespace {

absl::Time DeadlineOf(const grpc::ServerContext& context) {
  return std::min(absl::FromChrono(context.deadline()), absl::Now() + kMaxStepTime);
}

}  // namespace

grpc::Status EnvironmentServiceImpl::Reset(grpc::ServerContext* context,
                                           const v1::EnvironmentResetRequest* request,
                                           v1::EnvironmentResetReply* reply) {
  return rpc::Answer(environment_.Reset(*request, DeadlineOf(*context)), reply);
}

grpc::Status EnvironmentServiceImpl::Step(grpc::ServerContext* context,
                                          const v1::EnvironmentStepRequest* request,
                                          v1::EnvironmentStepReply* reply) {
  return rpc::Answer(environment_.Step(*request, DeadlineOf(*context)), reply);
}

grpc::Status EnvironmentServiceImpl::Close(grpc::ServerContext*, const v1::EnvironmentCloseRequest* request,
                                           v1::EnvironmentCloseReply*) {
  environment_.Close(request->episode());
  return grpc::Status::OK;
}

}  // namespace rein::services
