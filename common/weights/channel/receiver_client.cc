#include "common/weights/channel/receiver_client.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/weights/channel/for_all.h"
#include "common/weights/digest.h"

namespace rein::weights {
namespace {

constexpr uint64_t kChunkBytes = 1 << 20;

}  // namespace

ReceiverClient::ReceiverClient(const Publication& publication, const Receiver& receiver,
                               absl::Time deadline)
    : publication_(publication), receiver_(receiver), deadline_(deadline),
      stub_(v1::WeightService::NewStub(rpc::Connect(receiver.address))) {}

template <typename Request>
void ReceiverClient::Address(Request* request, const char* stage) const {
  *request->mutable_fence() = publication_.fence;
  request->mutable_fence()->set_request_id(
      absl::StrCat(publication_.fence.request_id(), "/", receiver_.name, "/", stage));
  request->mutable_fence()->set_actor_epoch(receiver_.actor_epoch);
  request->mutable_version()->set_lineage(publication_.version.lineage);
  request->mutable_version()->set_number(publication_.version.number);
}

absl::Status ReceiverClient::Begin(const WirePlan& wire) {
  v1::BeginWeightsRequest request;
  Address(&request, "begin");
  for (const PlannedParameter& p : publication_.plan.parameters) {
    v1::ParameterPlan* plan = request.add_parameters();
    plan->set_name(p.name);
    for (int64_t size : p.shape) plan->add_shape(size);
    plan->set_dtype(p.dtype);
    plan->set_offset_bytes(p.offset_bytes);
    plan->set_size_bytes(p.size_bytes);
  }
  request.set_arena_bytes(publication_.plan.arena_bytes);
  request.set_frozen_digest(publication_.plan.frozen_digest);
  request.set_transport(!wire.nccl_id.empty()      ? v1::WEIGHT_TRANSPORT_NCCL
                        : !wire.ipc.handle.empty() ? v1::WEIGHT_TRANSPORT_IPC
                                                   : v1::WEIGHT_TRANSPORT_GRPC);
  request.set_nccl_unique_id(wire.nccl_id);
  request.set_nccl_rank(wire.rank);
  request.set_nccl_size(wire.size);
  request.set_ipc_handle(wire.ipc.handle);
  request.set_ipc_offset(wire.ipc.offset);
  request.set_deadline_seconds(absl::ToDoubleSeconds(deadline_ - absl::Now()));
  grpc::ClientContext context;
  rpc::SetDeadline(context, deadline_ - absl::Now());
  v1::BeginWeightsReply reply;
  return rpc::FromGrpc(stub_->BeginWeights(&context, request, &reply));
}

absl::Status ReceiverClient::SendChunks() {
  grpc::ClientContext context;
  rpc::SetDeadline(context, deadline_ - absl::Now());
  v1::SendWeightsReply reply;
  auto stream = stub_->SendWeights(&context, &reply);
  v1::WeightChunk chunk;
  Address(&chunk, "send");
  for (uint64_t offset = 0; offset < publication_.plan.arena_bytes; offset += kChunkBytes) {
    const uint64_t size = std::min(kChunkBytes, publication_.plan.arena_bytes - offset);
    chunk.set_offset_bytes(offset);
    chunk.set_data(static_cast<const char*>(publication_.arena) + offset, size);
    if (!stream->Write(chunk)) break;  // Finish() says why
    chunk.clear_fence();
  }
  stream->WritesDone();
  return rpc::FromGrpc(stream->Finish());
}

InFlight FromProto(v1::InFlightPolicy policy) {
  switch (policy) {
    case v1::IN_FLIGHT_POLICY_FINISH:
      return InFlight::kFinish;
    case v1::IN_FLIGHT_POLICY_RECOMPUTE:
      return InFlight::kRecompute;
    default:
      return InFlight::kContinue;
  }
}

v1::InFlightPolicy ToProto(InFlight policy) {
  switch (policy) {
    case InFlight::kFinish:
      return v1::IN_FLIGHT_POLICY_FINISH;
    case InFlight::kRecompute:
      return v1::IN_FLIGHT_POLICY_RECOMPUTE;
    case InFlight::kContinue:
      break;
  }
  return v1::IN_FLIGHT_POLICY_CONTINUE;
}

absl::Status ReceiverClient::Commit() {
  v1::CommitWeightsRequest request;
  Address(&request, "commit");
  for (uint64_t digest : publication_.digests) request.add_parameter_digests(digest);
  request.set_digest(CombineDigests(publication_.digests));
  request.set_in_flight(ToProto(publication_.in_flight));
  grpc::ClientContext context;
  rpc::SetDeadline(context, deadline_ - absl::Now());
  v1::CommitWeightsReply reply;
  REIN_RETURN_IF_ERROR(rpc::FromGrpc(stub_->CommitWeights(&context, request, &reply)));
  if (reply.digest() == request.digest()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("committed digest ", absl::Hex(reply.digest()), ", want ",
                                          absl::Hex(request.digest())));
}

absl::Status ReceiverClient::Abort(absl::Duration patience) {
  v1::AbortWeightsRequest request;
  Address(&request, "abort");
  grpc::ClientContext context;
  rpc::SetDeadline(context, patience);
  v1::AbortWeightsReply reply;
  return rpc::FromGrpc(stub_->AbortWeights(&context, request, &reply));
}

std::vector<Outcome> SendToEach(const Publication& publication, const std::vector<Receiver>& receivers,
                                const std::function<absl::Status(ReceiverClient&)>& transfer) {
  const absl::Time deadline = absl::Now() + publication.deadline;
  std::vector<Outcome> outcomes(receivers.size());
  ForAll(receivers.size(), [&](size_t i) {
    ReceiverClient client(publication, receivers[i], deadline);
    outcomes[i] = {receivers[i].name, transfer(client)};
    if (!outcomes[i].status.ok()) client.Abort(kAbortPatience).IgnoreError();
  });
  return outcomes;
}

}  // namespace rein::weights
