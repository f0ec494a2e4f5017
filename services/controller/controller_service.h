// ControllerServiceImpl answers ControllerService: it checks requests, calls the controller on its
// thread, and streams events and logs.

#pragma once

#include <atomic>
#include <string>

#include "rein/v1/controller.grpc.pb.h"
#include "services/controller/controller_thread.h"

namespace rein::services {

struct ServiceOptions {
  v1::BuildVersion build;
  std::string log_folder;
  bool trusts_folders = true;  // base_folder of Submit is honoured: callers are on this machine
};

class ControllerServiceImpl final : public v1::ControllerService::Service {
 public:
  // `controller` must outlive the service.
  ControllerServiceImpl(ControllerThread& controller, ServiceOptions options)
      : controller_(controller), options_(std::move(options)) {}

  void SetAdminAddress(const std::string& address) { admin_address_ = address; }
  // Streams end within half a second.
  void Stop() { stopping_ = true; }

  using Context = grpc::ServerContext;
  grpc::Status Submit(Context*, const v1::SubmitRequest* request, v1::SubmitReply* reply) override;
  grpc::Status GetJob(Context*, const v1::GetJobRequest* request, v1::Job* reply) override;
  grpc::Status ListJobs(Context*, const v1::ListJobsRequest*, v1::ListJobsReply* reply) override;
  grpc::Status Watch(Context* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::JobEvent>* writer) override;
  grpc::Status Cancel(Context*, const v1::JobCommand* request, v1::Job* reply) override;
  grpc::Status Pause(Context*, const v1::JobCommand* request, v1::Job* reply) override;
  grpc::Status Resume(Context*, const v1::ResumeJobRequest* request, v1::Job* reply) override;
  grpc::Status Logs(Context* context, const v1::LogsRequest* request,
                    grpc::ServerWriter<v1::LogLine>* writer) override;
  grpc::Status ListRollouts(Context*, const v1::ListRolloutsRequest* request,
                            v1::ListRolloutsReply* reply) override;
  grpc::Status ListActors(Context*, const v1::ListActorsRequest*,
                          v1::ListActorsReply* reply) override;
  grpc::Status GetLedger(Context*, const v1::GetLedgerRequest* request,
                         v1::LedgerSummary* reply) override;
  grpc::Status Register(Context*, const v1::RegisterRequest* request,
                        v1::RegisterReply* reply) override;
  grpc::Status Heartbeat(Context*, const v1::HeartbeatRequest* request,
                         v1::HeartbeatReply* reply) override;
  grpc::Status GetServer(Context*, const v1::GetServerRequest*, v1::GetServerReply* reply) override;

 private:
  absl::StatusOr<v1::Job> SubmitJob(const v1::SubmitRequest& request);
  absl::StatusOr<v1::Job> JobCall(const std::function<absl::StatusOr<v1::Job>(Controller&)>& call);

  ControllerThread& controller_;
  const ServiceOptions options_;
  std::string admin_address_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace rein::services
