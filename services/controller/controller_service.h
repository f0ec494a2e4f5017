// ControllerServiceImpl answers ControllerService: it checks requests, calls the controller on its
// thread, and streams events and logs. A user sees the jobs of their tenant; of others' not even that
// they exist.

#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "common/access/audit_log.h"
#include "common/access/caller.h"
#include "rein/v1/controller.grpc.pb.h"
#include "services/controller/controller_thread.h"

namespace rein::services {

struct ServiceOptions {
  v1::BuildVersion build;
  std::string log_folder;
  bool trusts_folders = true;  // base_folder of Submit is honoured: callers are on this machine
  std::string state_folder;    // whose disk GetServer tells of
  // Who calls; empty: everybody is local.
  std::function<access::Caller(const grpc::ServerContext&)> caller_of = nullptr;
  access::AuditLog* audit = nullptr;  // of what changes something; may be null, must outlive the service
};

class ControllerServiceImpl final : public v1::ControllerService::Service {
 public:
  // `controller` must outlive the service.
  ControllerServiceImpl(ControllerThread& controller, ServiceOptions options)
      : controller_(controller), options_(std::move(options)) {}

  // The whole name of a job that the caller may see; NOT_FOUND for others'.
  absl::StatusOr<std::string> Visible(const access::Caller& caller, const std::string& name);
  // All actors; jobs of other tenants stand at none.
  std::vector<v1::Actor> ActorsFor(const access::Caller& caller);

  void SetAdminAddress(const std::string& address) { admin_address_ = address; }
  // Streams end within half a second.
  void Stop() { stopping_ = true; }

  using Context = grpc::ServerContext;
  grpc::Status Delete(Context* context, const v1::JobCommand* request,
                      v1::DeleteJobReply* reply) override;
  grpc::Status DeleteCheckpoint(Context* context, const v1::DeleteCheckpointRequest* request,
                                v1::Job* reply) override;
  grpc::Status ApplyRetention(Context* context, const v1::ApplyRetentionRequest* request,
                              v1::ApplyRetentionReply* reply) override;
  grpc::Status ListUpdates(Context* context, const v1::ListUpdatesRequest* request,
                           v1::ListUpdatesReply* reply) override;
  grpc::Status Submit(Context* context, const v1::SubmitRequest* request, v1::SubmitReply* reply) override;
  grpc::Status GetJob(Context* context, const v1::GetJobRequest* request, v1::Job* reply) override;
  grpc::Status ListJobs(Context* context, const v1::ListJobsRequest*, v1::ListJobsReply* reply) override;
  grpc::Status Watch(Context* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::JobEvent>* writer) override;
  grpc::Status Cancel(Context* context, const v1::JobCommand* request, v1::Job* reply) override;
  grpc::Status Pause(Context* context, const v1::JobCommand* request, v1::Job* reply) override;
  grpc::Status Resume(Context* context, const v1::ResumeJobRequest* request, v1::Job* reply) override;
  grpc::Status Logs(Context* context, const v1::LogsRequest* request,
                    grpc::ServerWriter<v1::LogLine>* writer) override;
  grpc::Status ListRollouts(Context* context, const v1::ListRolloutsRequest* request,
                            v1::ListRolloutsReply* reply) override;
  grpc::Status TraceRollout(Context* context, const v1::TraceRolloutRequest* request,
                            v1::TraceRolloutReply* reply) override;
  grpc::Status ListActors(Context* context, const v1::ListActorsRequest*,
                          v1::ListActorsReply* reply) override;
  grpc::Status GetLedger(Context* context, const v1::GetLedgerRequest* request,
                         v1::LedgerSummary* reply) override;
  grpc::Status Register(Context*, const v1::RegisterRequest* request,
                        v1::RegisterReply* reply) override;
  grpc::Status Heartbeat(Context*, const v1::HeartbeatRequest* request,
                         v1::HeartbeatReply* reply) override;
  grpc::Status GetServer(Context* context, const v1::GetServerRequest*, v1::GetServerReply* reply) override;

 private:
  access::Caller CallerOf(const Context& context) const;
  absl::StatusOr<v1::Job> SubmitJob(const v1::SubmitRequest& request, const access::Caller& caller);
  absl::StatusOr<v1::Job> JobCall(const std::function<absl::StatusOr<v1::Job>(Controller&)>& call);
  // Writes down who did what, before the answer. An entry that cannot be written refuses the answer.
  absl::Status Audit(const access::Caller& caller, const std::string& action,
                     const std::string& object, const absl::Status& result);
  // A change of one job: who may, the change, the audit log.
  template <typename Reply>
  grpc::Status Change(Context* context, const std::string& action, const std::string& name,
                      const std::function<absl::StatusOr<Reply>(Controller&, const std::string&)>& change,
                      Reply* reply);
  // A look at one job.
  template <typename Reply>
  grpc::Status Look(Context* context, const std::string& name,
                    const std::function<absl::StatusOr<Reply>(Controller&, const std::string&)>& look,
                    Reply* reply);

  ControllerThread& controller_;
  const ServiceOptions options_;
  std::string admin_address_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace rein::services
