#include "services/role/debug_client.h"

#include <future>

#include "common/rpc/channel.h"
#include "rein/v1/debug.grpc.pb.h"

namespace rein::services {
namespace {

constexpr absl::Duration kDeadline = absl::Minutes(2);  // an actor may be busy with an Update

v1::ActorTrace TraceOn(const v1::Actor& actor, const v1::TraceLayersRequest& request) {
  v1::ActorTrace trace;
  trace.set_actor(actor.name());
  trace.set_role(actor.role());
  grpc::ClientContext context;
  rpc::SetDeadline(context, kDeadline);
  grpc::Status status = v1::DebugService::NewStub(rpc::Connect(actor.address()))
                            ->TraceLayers(&context, request, trace.mutable_trace());
  if (!status.ok()) {
    trace.clear_trace();
    trace.set_error(status.error_message());
  }
  return trace;
}

bool HoldsAPolicy(const v1::Actor& actor) {
  return actor.state() == "READY" && actor.rank() == 0 &&
         (actor.role() == "trainer" || actor.role() == "rollout" || actor.role() == "reference");
}

}  // namespace

std::vector<v1::ActorTrace> TraceOnActors(const std::vector<v1::Actor>& actors,
                                          const v1::TraceLayersRequest& request) {
  std::vector<std::future<v1::ActorTrace>> calls;
  for (const v1::Actor& actor : actors) {
    if (HoldsAPolicy(actor)) calls.push_back(std::async(std::launch::async, [&] { return TraceOn(actor, request); }));
  }
  std::vector<v1::ActorTrace> traces;
  for (auto& call : calls) traces.push_back(call.get());
  return traces;
}

}  // namespace rein::services
