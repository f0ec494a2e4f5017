// StandbyService answers every call of a controller that waits for another's lease: with why, and who leads.

#pragma once

#include <functional>
#include <utility>

#include "absl/status/status.h"

#include "common/rpc/grpc_status.h"
#include "rein/v1/controller.grpc.pb.h"

namespace rein::services {

class StandbyService final : public v1::ControllerService::Service {
 public:
  // `refusal` is called from any thread.
  explicit StandbyService(std::function<absl::Status()> refusal) : refusal_(std::move(refusal)) {}

  using C = grpc::ServerContext;
  grpc::Status Submit(C*, const v1::SubmitRequest*, v1::SubmitReply*) override { return Refuse(); }
  grpc::Status GetJob(C*, const v1::GetJobRequest*, v1::Job*) override { return Refuse(); }
  grpc::Status ListJobs(C*, const v1::ListJobsRequest*, v1::ListJobsReply*) override { return Refuse(); }
  grpc::Status Watch(C*, const v1::WatchRequest*, grpc::ServerWriter<v1::JobEvent>*) override { return Refuse(); }
  grpc::Status Cancel(C*, const v1::JobCommand*, v1::Job*) override { return Refuse(); }
  grpc::Status Pause(C*, const v1::JobCommand*, v1::Job*) override { return Refuse(); }
  grpc::Status Resume(C*, const v1::ResumeJobRequest*, v1::Job*) override { return Refuse(); }
  grpc::Status Delete(C*, const v1::JobCommand*, v1::DeleteJobReply*) override { return Refuse(); }
  grpc::Status DeleteCheckpoint(C*, const v1::DeleteCheckpointRequest*, v1::Job*) override { return Refuse(); }
  grpc::Status ApplyRetention(C*, const v1::ApplyRetentionRequest*, v1::ApplyRetentionReply*) override { return Refuse(); }
  grpc::Status ListUpdates(C*, const v1::ListUpdatesRequest*, v1::ListUpdatesReply*) override { return Refuse(); }
  grpc::Status Logs(C*, const v1::LogsRequest*, grpc::ServerWriter<v1::LogLine>*) override { return Refuse(); }
  grpc::Status ListRollouts(C*, const v1::ListRolloutsRequest*, v1::ListRolloutsReply*) override { return Refuse(); }
  grpc::Status TraceRollout(C*, const v1::TraceRolloutRequest*, v1::TraceRolloutReply*) override { return Refuse(); }
  grpc::Status ListActors(C*, const v1::ListActorsRequest*, v1::ListActorsReply*) override { return Refuse(); }
  grpc::Status GetLedger(C*, const v1::GetLedgerRequest*, v1::LedgerSummary*) override { return Refuse(); }
  grpc::Status Register(C*, const v1::RegisterRequest*, v1::RegisterReply*) override { return Refuse(); }
  grpc::Status Heartbeat(C*, const v1::HeartbeatRequest*, v1::HeartbeatReply*) override { return Refuse(); }
  grpc::Status GetServer(C*, const v1::GetServerRequest*, v1::GetServerReply*) override { return Refuse(); }

 private:
  grpc::Status Refuse() const { return rpc::ToGrpc(refusal_()); }

  const std::function<absl::Status()> refusal_;
};

}  // namespace rein::services
