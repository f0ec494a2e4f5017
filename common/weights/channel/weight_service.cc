#include "common/weights/channel/weight_service.h"

#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "common/rpc/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/weights/channel/ipc_memory.h"
#include "common/weights/channel/weight_channel.h"
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
  plan.frozen_digest = request.frozen_digest();
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

grpc::Status WeightServiceImpl::Failed(const absl::Status& status) {
  if (metrics_ != nullptr) metrics_->End(status, absl::Now());
  if (on_error_) on_error_(status);
  return rpc::ToGrpc(status);
}

absl::Status WeightServiceImpl::Begin(WeightReceiver& receiver,
                                      const v1::BeginWeightsRequest& request,
                                      v1::BeginWeightsReply* reply) {
  const bool nccl = request.transport() == v1::WEIGHT_TRANSPORT_NCCL;
  REIN_ASSIGN_OR_RETURN(std::optional<Version> current,
                        receiver.Begin(FromProto(request.version()), PlanOf(request),
                                       absl::Seconds(request.deadline_seconds())));
  const bool ipc = request.transport() == v1::WEIGHT_TRANSPORT_IPC;
  if (metrics_ != nullptr) metrics_->Begin(nccl ? "nccl" : ipc ? "ipc" : "grpc", absl::Now());
  if (current.has_value()) ToProto(*current, reply->mutable_current());
  if (!nccl && !ipc) return absl::OkStatus();
  REIN_ASSIGN_OR_RETURN(DeviceMemory memory, receiver.IdleDeviceMemory());
  if (ipc) {
    REIN_RETURN_IF_ERROR(CopyFromShared({request.ipc_handle(), request.ipc_offset()}, memory.arena, request.arena_bytes(), memory.device));
    if (metrics_ != nullptr) metrics_->AddBytes(request.arena_bytes());
    return absl::OkStatus();
  }
  broadcast_.Start({request.nccl_unique_id(), static_cast<int>(request.nccl_rank()),
                    static_cast<int>(request.nccl_size()), memory.device},
                   memory.arena, request.arena_bytes(),
                   absl::Now() + absl::Seconds(request.deadline_seconds()));
  nccl_open_ = true;
  return absl::OkStatus();
}

grpc::Status WeightServiceImpl::BeginWeights(grpc::ServerContext*,
                                             const v1::BeginWeightsRequest* request,
                                             v1::BeginWeightsReply* reply) {
  auto receiver = Admit(request->fence());
  if (!receiver.ok()) return rpc::ToGrpc(receiver.status());
  absl::Status begun = Begin(**receiver, *request, reply);
  return begun.ok() ? grpc::Status::OK : Failed(begun);
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
    if (!status.ok()) return Failed(status);
    received += chunk.data().size();
    if (metrics_ != nullptr) metrics_->AddBytes(chunk.data().size());
  }
  reply->set_received_bytes(received);
  return grpc::Status::OK;
}

absl::Status WeightServiceImpl::Commit(WeightReceiver& receiver,
                                       const v1::CommitWeightsRequest& request) {
  if (nccl_open_.exchange(false)) {
    REIN_RETURN_IF_ERROR(broadcast_.Wait());
    if (metrics_ != nullptr) metrics_->AddBytes(receiver.plan().arena_bytes);
  }
  return receiver.Commit(FromProto(request.version()),
                         {request.parameter_digests().begin(), request.parameter_digests().end()},
                         weights::FromProto(request.in_flight()));
}

grpc::Status WeightServiceImpl::CommitWeights(grpc::ServerContext*,
                                              const v1::CommitWeightsRequest* request,
                                              v1::CommitWeightsReply* reply) {
  auto receiver = Admit(request->fence());
  if (!receiver.ok()) return rpc::ToGrpc(receiver.status());
  absl::Status status = Commit(**receiver, *request);
  if (!status.ok()) return Failed(status);
  if (metrics_ != nullptr) metrics_->End(absl::OkStatus(), absl::Now());
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
  if (metrics_ != nullptr) metrics_->End(absl::CancelledError("aborted"), absl::Now());
  return grpc::Status::OK;
}

}  // namespace rein::weights
