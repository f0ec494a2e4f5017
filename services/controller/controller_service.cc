#include "services/controller/controller_service.h"

#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"

#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/config/yaml_writer.h"
#include "common/rpc/grpc_status.h"
#include "common/status/status_macros.h"
#include "services/controller/log_reader.h"

namespace rein::services {
namespace {

constexpr absl::Duration kWatchPause = absl::Milliseconds(500);

}  // namespace

absl::StatusOr<v1::Job> ControllerServiceImpl::JobCall(
    const std::function<absl::StatusOr<v1::Job>(Controller&)>& call) {
  return controller_.Call<absl::StatusOr<v1::Job>>(call);
}

absl::StatusOr<v1::Job> ControllerServiceImpl::SubmitJob(const v1::SubmitRequest& request) {
  config::JobText text{.yaml = request.yaml(),
                       .file_name = request.file_name().empty() ? "job" : request.file_name(),
                       .overrides = {request.overrides().begin(), request.overrides().end()},
                       .folder = options_.trusts_folders ? request.base_folder() : ""};
  REIN_ASSIGN_OR_RETURN(v1::JobConfig config, config::ReadJob(text));
  REIN_ASSIGN_OR_RETURN(config, controller_.Call<absl::StatusOr<v1::JobConfig>>(
                                    [&](Controller& c) { return c.ResolveModel(config); }));
  if (absl::Status data = CheckPrompts(config); !data.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.file_name, ": ", std::string(data.message())));
  }
  if (!request.validate_only()) {
    return JobCall([&](Controller& c) { return c.Submit(request.request_id(), config); });
  }
  v1::Job job;
  job.set_name(config.name());
  job.set_kind(config::KindOf(config));
  job.set_config_yaml(config::ToYaml(config));
  job.set_config_hash(config::HashOf(config));
  *job.mutable_config() = std::move(config);
  return job;
}

grpc::Status ControllerServiceImpl::Submit(Context*, const v1::SubmitRequest* request,
                                           v1::SubmitReply* reply) {
  return rpc::Answer(SubmitJob(*request), reply->mutable_job());
}

grpc::Status ControllerServiceImpl::GetJob(Context*, const v1::GetJobRequest* request,
                                           v1::Job* reply) {
  return rpc::Answer(JobCall([&](Controller& c) { return c.GetJob(request->name()); }), reply);
}

grpc::Status ControllerServiceImpl::ListJobs(Context*, const v1::ListJobsRequest*,
                                             v1::ListJobsReply* reply) {
  auto jobs = controller_.Call<std::vector<v1::Job>>([](Controller& c) { return c.ListJobs(); });
  reply->mutable_jobs()->Add(jobs.begin(), jobs.end());
  return grpc::Status::OK;
}

grpc::Status ControllerServiceImpl::Watch(Context* context, const v1::WatchRequest* request,
                                          grpc::ServerWriter<v1::JobEvent>* writer) {
  using NewEvents = absl::StatusOr<Controller::NewEvents>;
  std::string name = request->name();
  uint64_t after = request->after();
  while (!context->IsCancelled() && !stopping_) {
    uint64_t seen = controller_.events();
    NewEvents found =
        controller_.Call<NewEvents>([&](Controller& c) { return c.EventsAfter(name, after); });
    if (!found.ok()) return rpc::ToGrpc(found.status());
    name = found->job;
    for (const v1::JobEvent& event : found->events) {
      if (!writer->Write(event)) return grpc::Status::OK;
      after = event.sequence();
    }
    bool over = HasEnded(found->state) || found->state == v1::JOB_STATE_PAUSED;
    if (over || request->no_follow()) return grpc::Status::OK;
    controller_.WaitForEvents(seen, kWatchPause);
  }
  return rpc::ToGrpc(absl::UnavailableError("the controller stops"));
}

grpc::Status ControllerServiceImpl::Cancel(Context*, const v1::JobCommand* request,
                                           v1::Job* reply) {
  return rpc::Answer(JobCall([&](Controller& c) { return c.Cancel(request->name()); }), reply);
}

grpc::Status ControllerServiceImpl::Pause(Context*, const v1::JobCommand* request, v1::Job* reply) {
  return rpc::Answer(JobCall([&](Controller& c) { return c.Pause(request->name()); }), reply);
}

grpc::Status ControllerServiceImpl::Resume(Context*, const v1::ResumeJobRequest* request,
                                           v1::Job* reply) {
  std::vector<std::string> overrides(request->overrides().begin(), request->overrides().end());
  return rpc::Answer(JobCall([&](Controller& c) { return c.Resume(request->name(), overrides); }),
                     reply);
}

grpc::Status ControllerServiceImpl::Logs(Context* context, const v1::LogsRequest* request,
                                         grpc::ServerWriter<v1::LogLine>* writer) {
  std::string name = request->name();
  if (!LogReader(options_.log_folder, name).IsActor()) {
    absl::StatusOr<v1::Job> job = JobCall([&](Controller& c) { return c.GetJob(name); });
    if (!job.ok()) return rpc::ToGrpc(job.status());
    name = job->name();
  }
  LogReader reader(options_.log_folder, name);
  std::vector<v1::LogLine> lines = reader.ReadNew();
  size_t first =
      request->tail() > 0 && lines.size() > request->tail() ? lines.size() - request->tail() : 0;
  lines.erase(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(first));
  while (!context->IsCancelled() && !stopping_) {
    for (const v1::LogLine& line : lines) {
      if (!writer->Write(line)) return grpc::Status::OK;
    }
    if (!request->follow()) return grpc::Status::OK;
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(kWatchPause));
    lines = reader.ReadNew();
  }
  return grpc::Status::OK;
}

grpc::Status ControllerServiceImpl::ListRollouts(Context*, const v1::ListRolloutsRequest* request,
                                                 v1::ListRolloutsReply* reply) {
  using Reply = absl::StatusOr<v1::ListRolloutsReply>;
  return rpc::Answer(
      controller_.Call<Reply>([&](Controller& c) { return c.ListRollouts(*request); }), reply);
}

grpc::Status ControllerServiceImpl::ListActors(Context*, const v1::ListActorsRequest*,
                                               v1::ListActorsReply* reply) {
  auto actors =
      controller_.Call<std::vector<v1::Actor>>([](Controller& c) { return c.registry().Actors(); });
  reply->mutable_actors()->Add(actors.begin(), actors.end());
  return grpc::Status::OK;
}

grpc::Status ControllerServiceImpl::GetLedger(Context*, const v1::GetLedgerRequest* request,
                                              v1::LedgerSummary* reply) {
  using Reply = absl::StatusOr<v1::LedgerSummary>;
  return rpc::Answer(
      controller_.Call<Reply>([&](Controller& c) { return c.GetLedger(request->name()); }), reply);
}

grpc::Status ControllerServiceImpl::Register(Context*, const v1::RegisterRequest* request,
                                             v1::RegisterReply* reply) {
  using Reply = absl::StatusOr<v1::RegisterReply>;
  return rpc::Answer(
      controller_.Call<Reply>([&](Controller& c) { return c.registry().Register(*request); }),
      reply);
}

grpc::Status ControllerServiceImpl::Heartbeat(Context*, const v1::HeartbeatRequest* request,
                                              v1::HeartbeatReply* reply) {
  using Reply = absl::StatusOr<v1::HeartbeatReply>;
  return rpc::Answer(
      controller_.Call<Reply>([&](Controller& c) { return c.registry().Heartbeat(*request); }),
      reply);
}

grpc::Status ControllerServiceImpl::GetServer(Context*, const v1::GetServerRequest*,
                                              v1::GetServerReply* reply) {
  *reply->mutable_build() = options_.build;
  reply->set_admin_address(admin_address_);
  reply->set_controller_epoch(
      controller_.Call<uint64_t>([](Controller& c) { return c.registry().controller_epoch(); }));
  return grpc::Status::OK;
}

}  // namespace rein::services
