#include "services/controller/controller_service.h"

#include <chrono>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/config/yaml_writer.h"
#include "common/rpc/grpc_status.h"
#include "common/status/status_macros.h"
#include "services/controller/log_reader.h"
#include "services/controller/training_batch.h"
#include "services/role/debug_client.h"

namespace rein::services {
namespace {

constexpr absl::Duration kWatchPause = absl::Milliseconds(500);

}  // namespace

absl::StatusOr<v1::Job> ControllerServiceImpl::JobCall(
    const std::function<absl::StatusOr<v1::Job>(Controller&)>& call) {
  return controller_.Call<absl::StatusOr<v1::Job>>(call);
}

absl::StatusOr<v1::Job> ControllerServiceImpl::SubmitJob(const v1::SubmitRequest& request,
                                                         const access::Caller& caller) {
  config::JobText text{.yaml = request.yaml(),
                       .file_name = request.file_name().empty() ? "job" : request.file_name(),
                       .overrides = {request.overrides().begin(), request.overrides().end()},
                       .folder = options_.trusts_folders ? request.base_folder() : ""};
  REIN_ASSIGN_OR_RETURN(v1::JobConfig config, config::ReadJob(text));
  if (config.model().has_job()) {
    REIN_ASSIGN_OR_RETURN(*config.mutable_model()->mutable_job(),
                          Visible(caller, config.model().job()));
  }
  for (v1::RewardConfig& reward : *config.mutable_rewards()) {
    if (!reward.model().has_job()) continue;
    REIN_ASSIGN_OR_RETURN(*reward.mutable_model()->mutable_job(),
                          Visible(caller, reward.model().job()));
  }
  REIN_ASSIGN_OR_RETURN(config, controller_.Call<absl::StatusOr<v1::JobConfig>>(
                                    [&](Controller& c) { return c.ResolveModel(config); }));
  if (absl::Status data = CheckPrompts(config); !data.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.file_name, ": ", std::string(data.message())));
  }
  if (!request.validate_only()) {
    return JobCall([&](Controller& c) {
      return c.Submit(request.request_id(), config, caller.tenant);
    });
  }
  v1::Job job;
  job.set_name(config.name());
  job.set_kind(config::KindOf(config));
  job.set_config_yaml(config::ToYaml(config));
  job.set_config_hash(config::HashOf(config));
  *job.mutable_config() = std::move(config);
  return job;
}

access::Caller ControllerServiceImpl::CallerOf(const Context& context) const {
  if (options_.caller_of) return options_.caller_of(context);
  access::Caller caller;
  caller.local = true;
  return caller;
}

absl::StatusOr<std::string> ControllerServiceImpl::Visible(const access::Caller& caller,
                                                           const std::string& name) {
  absl::StatusOr<v1::Job> job = JobCall([&](Controller& c) { return c.GetJob(name); });
  if (caller.sees_all()) {
    if (!job.ok()) return job.status();
    return job->name();
  }
  // One answer for what is not there and for what is not theirs; no names of others.
  if (!job.ok() || job->owner() != caller.tenant) return absl::NotFoundError(absl::StrCat("no job ", name));
  return job->name();
}

std::vector<v1::Actor> ControllerServiceImpl::ActorsFor(const access::Caller& caller) {
  auto theirs = [&](const JobRecord& job) { return caller.sees_all() || job.owner == caller.tenant; };
  auto actors = controller_.Call<std::vector<v1::Actor>>([&](Controller& c) { return c.ListActors(theirs); });
  for (v1::Actor& actor : actors) {
    if (!caller.sees_all()) actor.clear_load();  // names the job that it works for
  }
  return actors;
}

absl::Status ControllerServiceImpl::Audit(const access::Caller& caller, const std::string& action,
                                          const std::string& object, const absl::Status& result) {
  if (options_.audit == nullptr) return absl::OkStatus();
  return options_.audit->Append({.who = caller.Name(),
                                 .action = action,
                                 .object = object,
                                 .result = absl::StatusCodeToString(result.code())});
}

template <typename Reply>
grpc::Status ControllerServiceImpl::Look(
    Context* context, const std::string& name,
    const std::function<absl::StatusOr<Reply>(Controller&, const std::string&)>& look, Reply* reply) {
  const access::Caller caller = CallerOf(*context);
  std::string whole = name;
  if (!caller.sees_all()) {
    absl::StatusOr<std::string> visible = Visible(caller, name);
    if (!visible.ok()) return rpc::ToGrpc(visible.status());
    whole = *visible;
  }
  return rpc::Answer(controller_.Call<absl::StatusOr<Reply>>(
                         [&](Controller& c) { return look(c, whole); }),
                     reply);
}

template <typename Reply>
grpc::Status ControllerServiceImpl::Change(
    Context* context, const std::string& action, const std::string& name,
    const std::function<absl::StatusOr<Reply>(Controller&, const std::string&)>& change,
    Reply* reply) {
  grpc::Status done = Look<Reply>(context, name, change, reply);
  absl::Status written = Audit(CallerOf(*context), action, name, rpc::FromGrpc(done));
  return written.ok() ? done : rpc::ToGrpc(written);
}

grpc::Status ControllerServiceImpl::Submit(Context* context, const v1::SubmitRequest* request,
                                           v1::SubmitReply* reply) {
  const access::Caller caller = CallerOf(*context);
  absl::StatusOr<v1::Job> job = SubmitJob(*request, caller);
  if (!request->validate_only()) {
    absl::Status written = Audit(caller, "Submit", job.ok() ? job->name() : request->file_name(), job.status());
    if (!written.ok()) return rpc::ToGrpc(written);
  }
  return rpc::Answer(std::move(job), reply->mutable_job());
}

grpc::Status ControllerServiceImpl::GetJob(Context* context, const v1::GetJobRequest* request,
                                           v1::Job* reply) {
  return Look<v1::Job>(context, request->name(),
                       [](Controller& c, const std::string& name) { return c.GetJob(name); }, reply);
}

grpc::Status ControllerServiceImpl::ListJobs(Context* context, const v1::ListJobsRequest*,
                                             v1::ListJobsReply* reply) {
  const access::Caller caller = CallerOf(*context);
  auto jobs = controller_.Call<std::vector<v1::Job>>([](Controller& c) { return c.ListJobs(); });
  for (v1::Job& job : jobs) {
    if (caller.sees_all() || job.owner() == caller.tenant) *reply->add_jobs() = std::move(job);
  }
  return grpc::Status::OK;
}

grpc::Status ControllerServiceImpl::Watch(Context* context, const v1::WatchRequest* request,
                                          grpc::ServerWriter<v1::JobEvent>* writer) {
  using NewEvents = absl::StatusOr<Controller::NewEvents>;
  absl::StatusOr<std::string> visible = Visible(CallerOf(*context), request->name());
  if (!visible.ok()) return rpc::ToGrpc(visible.status());
  std::string name = *visible;
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

grpc::Status ControllerServiceImpl::Cancel(Context* context, const v1::JobCommand* request,
                                           v1::Job* reply) {
  return Change<v1::Job>(context, "Cancel", request->name(),
                         [](Controller& c, const std::string& name) { return c.Cancel(name); }, reply);
}

grpc::Status ControllerServiceImpl::Pause(Context* context, const v1::JobCommand* request,
                                          v1::Job* reply) {
  return Change<v1::Job>(context, "Pause", request->name(),
                         [](Controller& c, const std::string& name) { return c.Pause(name); }, reply);
}

grpc::Status ControllerServiceImpl::Resume(Context* context, const v1::ResumeJobRequest* request,
                                           v1::Job* reply) {
  std::vector<std::string> overrides(request->overrides().begin(), request->overrides().end());
  auto resume = [&](Controller& c, const std::string& name) { return c.Resume(name, overrides); };
  return Change<v1::Job>(context, "Resume", request->name(), resume, reply);
}

grpc::Status ControllerServiceImpl::Delete(Context* context, const v1::JobCommand* request,
                                           v1::DeleteJobReply* reply) {
  auto remove = [](Controller& c, const std::string& name) { return c.Delete(name); };
  return Change<v1::DeleteJobReply>(context, "Delete", request->name(), remove, reply);
}

grpc::Status ControllerServiceImpl::DeleteCheckpoint(Context* context,
                                                     const v1::DeleteCheckpointRequest* request,
                                                     v1::Job* reply) {
  auto remove = [request](Controller& c, const std::string& name) {
    return c.DeleteCheckpoint(name, request->number());
  };
  return Change<v1::Job>(context, "DeleteCheckpoint", request->name(), remove, reply);
}

grpc::Status ControllerServiceImpl::ApplyRetention(Context* context, const v1::ApplyRetentionRequest* request,
                                                   v1::ApplyRetentionReply* reply) {
  const access::Caller caller = CallerOf(*context);
  auto theirs = [&](const JobRecord& job) { return caller.sees_all() || job.owner == caller.tenant; };
  *reply = controller_.Call<v1::ApplyRetentionReply>(
      [&](Controller& c) { return c.ApplyRetention(request->dry_run(), theirs); });
  if (request->dry_run()) return grpc::Status::OK;
  for (const v1::Expired& one : reply->expired()) {
    const absl::Status result = one.error().empty() ? absl::OkStatus() : absl::InternalError(one.error());
    absl::Status written = Audit(caller, "ApplyRetention", absl::StrCat(one.job(), " ", one.what()), result);
    if (!written.ok()) return rpc::ToGrpc(written);
  }
  return grpc::Status::OK;
}

grpc::Status ControllerServiceImpl::ListUpdates(Context* context,
                                                const v1::ListUpdatesRequest* request,
                                                v1::ListUpdatesReply* reply) {
  auto list = [request](Controller& c, const std::string& name) {
    v1::ListUpdatesRequest named = *request;
    named.set_name(name);
    return c.ListUpdates(named);
  };
  return Look<v1::ListUpdatesReply>(context, request->name(), list, reply);
}

grpc::Status ControllerServiceImpl::Logs(Context* context, const v1::LogsRequest* request,
                                         grpc::ServerWriter<v1::LogLine>* writer) {
  const access::Caller caller = CallerOf(*context);
  std::string name = request->name();
  // An actor's log has lines of every tenant's jobs.
  if (!caller.sees_all() || !LogReader(options_.log_folder, name).IsActor()) {
    absl::StatusOr<std::string> visible = Visible(caller, name);
    if (!visible.ok()) return rpc::ToGrpc(visible.status());
    name = *visible;
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

grpc::Status ControllerServiceImpl::ListRollouts(Context* context,
                                                 const v1::ListRolloutsRequest* request,
                                                 v1::ListRolloutsReply* reply) {
  auto list = [request](Controller& c, const std::string& name) {
    v1::ListRolloutsRequest named = *request;
    named.set_name(name);
    return c.ListRollouts(named);
  };
  return Look<v1::ListRolloutsReply>(context, request->name(), list, reply);
}

grpc::Status ControllerServiceImpl::TraceRollout(Context* context, const v1::TraceRolloutRequest* request,
                                                 v1::TraceRolloutReply* reply) {
  std::vector<v1::Actor> actors;
  v1::TraceLayersRequest trace;
  auto find = [&](Controller& c, const std::string& name) -> absl::StatusOr<v1::StoredRollout> {
    v1::ListRolloutsRequest list;
    list.set_name(name);
    list.set_update(request->update());
    list.set_tokens(true);
    list.set_limit(1);
    if (request->has_prompt()) list.set_prompt(request->prompt());
    if (request->has_sibling()) list.set_sibling(request->sibling());
    REIN_ASSIGN_OR_RETURN(v1::ListRolloutsReply found, c.ListRollouts(list));
    if (found.rollouts().empty()) {
      return absl::NotFoundError(absl::StrCat("update ", found.update(), " has no such rollout: rein rollouts ", name,
                                              " --update ", found.update(), " lists them"));
    }
    REIN_ASSIGN_OR_RETURN(v1::Job job, c.GetJob(name));
    const v1::GrpoConfig* rl = config::PolicyGradientOf(job.config());
    reply->set_temperature(rl != nullptr && rl->temperature() > 0 ? rl->temperature() : 1);
    reply->set_filtered(rl != nullptr && !DrawsFromAll(*rl));
    trace.set_job(job.name());
    reply->set_job(job.name());
    actors = c.ActorsOf(job.name());
    return found.rollouts(0);
  };
  grpc::Status found = Look<v1::StoredRollout>(context, request->name(), find, reply->mutable_rollout());
  if (!found.ok()) return found;
  const v1::Rollout& rollout = reply->rollout().rollout();
  *trace.mutable_token_ids() = rollout.prompt_token_ids();
  trace.mutable_token_ids()->MergeFrom(rollout.completion().token_ids());
  trace.set_prefix(static_cast<uint32_t>(rollout.prompt_token_ids_size()));
  trace.set_temperature(reply->temperature());
  for (v1::ActorTrace& actor : TraceOnActors(actors, trace)) *reply->add_traces() = std::move(actor);
  if (reply->traces().empty()) {
    return rpc::ToGrpc(absl::FailedPreconditionError("no trainer, rollout service or reference is ready: rein get actors"));
  }
  return grpc::Status::OK;
}

grpc::Status ControllerServiceImpl::ListActors(Context* context, const v1::ListActorsRequest*,
                                               v1::ListActorsReply* reply) {
  for (v1::Actor& actor : ActorsFor(CallerOf(*context))) *reply->add_actors() = std::move(actor);
  return grpc::Status::OK;
}

grpc::Status ControllerServiceImpl::GetLedger(Context* context, const v1::GetLedgerRequest* request,
                                              v1::LedgerSummary* reply) {
  auto get = [](Controller& c, const std::string& name) { return c.GetLedger(name); };
  return Look<v1::LedgerSummary>(context, request->name(), get, reply);
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

grpc::Status ControllerServiceImpl::GetServer(Context* context, const v1::GetServerRequest*,
                                              v1::GetServerReply* reply) {
  *reply->mutable_build() = options_.build;
  reply->set_admin_address(admin_address_);
  reply->set_time(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  std::error_code error;
  const std::filesystem::space_info disk = std::filesystem::space(options_.state_folder, error);
  if (!options_.state_folder.empty() && !error) {
    reply->set_disk_free_bytes(disk.available);
    reply->set_disk_bytes(disk.capacity);
  }
  const access::Caller caller = CallerOf(*context);
  reply->set_user(caller.user);
  if (!caller.user.empty()) reply->set_user_role(access::NameOf(caller.role));
  reply->set_controller_epoch(
      controller_.Call<uint64_t>([](Controller& c) { return c.registry().controller_epoch(); }));
  return grpc::Status::OK;
}

}  // namespace rein::services
