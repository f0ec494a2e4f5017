#include "services/role/debug_service.h"

#include "common/rpc/grpc_status.h"

namespace rein::services {

grpc::Status DebugServiceImpl::TraceLayers(grpc::ServerContext*, const v1::TraceLayersRequest* request,
                                           v1::TraceLayersReply* reply) {
  return rpc::Answer(trace_(*request), reply);
}

policy::ScoredSequence SequenceOf(const v1::TraceLayersRequest& request) {
  return {{request.token_ids().begin(), request.token_ids().end()}, request.prefix()};
}

v1::TraceLayersReply ToProto(const policy::LayerTrace& trace) {
  v1::TraceLayersReply reply;
  reply.set_stages(static_cast<uint32_t>(trace.stages()));
  for (size_t stage = 0; stage < trace.stages(); ++stage) {
    reply.mutable_state_digests()->Add(trace.digest[stage].begin(), trace.digest[stage].end());
    reply.mutable_state_norms()->Add(trace.norm[stage].begin(), trace.norm[stage].end());
  }
  reply.mutable_logprobs()->Add(trace.logprob.begin(), trace.logprob.end());
  return reply;
}

}  // namespace rein::services
