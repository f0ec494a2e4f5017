#include "common/weights/channel/weight_service.h"

#include <utility>

#include "absl/time/clock.h"
#include "common/rpc/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::weights {
namespace {

Version FromProto(const v1::PolicyVersion& version) {
  return {version.lineage(), version.number()};
}

void ToProto(const Version& version, v1::PolicyVersion* proto) {
  proto->set_lineage(version.lineage);
  proto->set_number(version.number);
}

WeightPlan PlanOf(const v1::BeginWeightsRequest& request) {
  WeightPlan plan;
  plan.arena_bytes = request.arena_bytes();
  for (const v1::ParameterPlan& p : request.parameters()) {
    plan.parameters.push_back({p.name(), {p.shape().begin(), p.shape().end()}, p.dtype(),
                               p.offset_bytes(), p.size_bytes()});
  }
  return plan;
}

}  // namespace

absl::StatusOr<std::shared_ptr<WeightReceiver>> WeightServiceImpl::Admit(const v1::Fence& fence) {
  REIN_RETURN_IF_ERROR(fence_.Admit(fence));
  std::shared_ptr<WeightReceiver> receiver = find_();
  if (receiver == nullptr) {
    return absl::FailedPreconditionError("no model is loaded: call Load before BeginWeights");
  }
  return receiver;
}

grpc::Status WeightServiceImpl::BeginWeights(grpc::ServerContext*,
                                             const v1::BeginWeightsRequest* request,
                                             v1::BeginWeightsReply* reply) {
  auto receiver = Admit(request->fence());
  if (!receiver.ok()) return rpc::ToGrpc(receiver.status());
  auto current = (*receiver)->Begin(FromProto(request->version()), PlanOf(*request),
                                    absl::Seconds(request->deadline_seconds()));
  if (!current.ok()) return rpc::ToGrpc(current.status());
  if (current->has_value()) ToProto(**current, reply->mutable_current());
  if (request->transport() != v1::WEIGHT_TRANSPORT_NCCL) return grpc::Status::OK;
  auto memory = (*receiver)->IdleDeviceMemory();
  if (!memory.ok()) return rpc::ToGrpc(memory.status());
  broadcast_.Start({request->nccl_unique_id(), static_cast<int>(request->nccl_rank()),
                    static_cast<int>(request->nccl_size()), memory->device},
                   memory->arena, request->arena_bytes(),
                   absl::Now() + absl::Seconds(request->deadline_seconds()));
  nccl_open_ = true;
  return grpc::Status::OK;
}

grpc::Status WeightServiceImpl::SendWeights(grpc::ServerContext*,
                                            grpc::ServerReader<v1::WeightChunk>* reader,
                                            v1::SendWeightsReply* reply) {
  std::shared_ptr<WeightReceiver> receiver;
  v1::WeightChunk chunk;
  uint64_t received = 0;
  while (reader->Read(&chunk)) {
    if (receiver == nullptr) {
      auto admitted = Admit(chunk.fence());
      if (!admitted.ok()) return rpc::ToGrpc(admitted.status());
      receiver = *std::move(admitted);
    }
    absl::Status status = receiver->Write(FromProto(chunk.version()), chunk.offset_bytes(),
                                          chunk.data().data(), chunk.data().size());
    if (!status.ok()) return rpc::ToGrpc(status);
    received += chunk.data().size();
  }
  reply->set_received_bytes(received);
  return grpc::Status::OK;
}

grpc::Status WeightServiceImpl::CommitWeights(grpc::ServerContext*,
                                              const v1::CommitWeightsRequest* request,
                                              v1::CommitWeightsReply* reply) {
  auto receiver = Admit(request->fence());
  if (!receiver.ok()) return rpc::ToGrpc(receiver.status());
  if (nccl_open_.exchange(false)) {
    absl::Status arrived = broadcast_.Wait();
    if (!arrived.ok()) return rpc::ToGrpc(arrived);
  }
  absl::Status status = (*receiver)->Commit(
      FromProto(request->version()),
      {request->parameter_digests().begin(), request->parameter_digests().end()},
      request->in_flight() == v1::IN_FLIGHT_POLICY_FINISH ? InFlight::kFinish
                                                          : InFlight::kContinue);
  if (!status.ok()) return rpc::ToGrpc(status);
  *reply->mutable_version() = request->version();
  reply->set_digest((*receiver)->digest());
  return grpc::Status::OK;
}

grpc::Status WeightServiceImpl::AbortWeights(grpc::ServerContext*,
                                             const v1::AbortWeightsRequest* request,
                                             v1::AbortWeightsReply*) {
  auto receiver = Admit(request->fence());
  if (!receiver.ok()) return rpc::ToGrpc(receiver.status());
  if (nccl_open_.exchange(false)) broadcast_.Abort();
  (*receiver)->Abort(FromProto(request->version()));
  return grpc::Status::OK;
}

}  // namespace rein::weights
