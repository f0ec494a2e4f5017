// DebugServiceImpl is the gRPC door through which trainer, rollout and reference show what they compute.
//
//   DebugServiceImpl debug([&service](const v1::TraceLayersRequest& request) { return service.Trace(request); });

#pragma once

#include <functional>

#include "absl/status/statusor.h"

#include "common/policy/layer_trace.h"
#include "rein/v1/debug.grpc.pb.h"

namespace rein::services {

class DebugServiceImpl final : public v1::DebugService::Service {
 public:
  using Trace = std::function<absl::StatusOr<v1::TraceLayersReply>(const v1::TraceLayersRequest&)>;

  // Calls come from any thread, also beside other work.
  explicit DebugServiceImpl(Trace trace) : trace_(std::move(trace)) {}

  grpc::Status TraceLayers(grpc::ServerContext* context, const v1::TraceLayersRequest* request,
                           v1::TraceLayersReply* reply) override;

 private:
  const Trace trace_;
};

policy::ScoredSequence SequenceOf(const v1::TraceLayersRequest& request);
// Without version and digest.
v1::TraceLayersReply ToProto(const policy::LayerTrace& trace);

}  // namespace rein::services
