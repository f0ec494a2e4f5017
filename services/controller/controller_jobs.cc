// The part of Controller that answers for jobs.

#include <algorithm>
#include <filesystem>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/config/yaml_writer.h"
#include "common/status/status_macros.h"
#include "services/controller/controller.h"
#include "services/controller/retention.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kDefaultRollouts = 16;

// The first setting that a resumed job may not change, because the order or the meaning of the data
// would; empty when there is none.
std::string FixedSetting(const v1::JobConfig& a, const v1::JobConfig& b) {
  if (a.kind_case() != b.kind_case()) return "the kind of job";
  if (a.name() != b.name()) return "name";
  if (a.seed() != b.seed()) return "seed";
  if (a.model().SerializeAsString() != b.model().SerializeAsString()) return "model";
  if (a.data().SerializeAsString() != b.data().SerializeAsString()) return "data";
  if (a.output() != b.output()) return "output";
  const v1::GrpoConfig *rl_a = config::PolicyGradientOf(a), *rl_b = config::PolicyGradientOf(b);
  if (rl_a != nullptr && rl_b != nullptr) {
    const std::string kind = config::KindOf(a);
    if (rl_a->prompts() != rl_b->prompts()) return kind + ".prompts";
    if (rl_a->group_size() != rl_b->group_size()) return kind + ".group_size";
    if (rl_a->advantage() != rl_b->advantage()) return kind + ".advantage";
    if (rl_a->has_updates() != rl_b->has_updates()) return kind + ".updates (given or not)";
  }
  const auto text_a = config::TextJobOf(a), text_b = config::TextJobOf(b);
  if (text_a && text_b && text_a->answers != text_b->answers) return config::KindOf(a) + ".objective";
  if (text_a && text_b && text_a->lines != text_b->lines) {
    return config::KindOf(a) + (text_a->answers == config::TextJob::Answers::kPair ? ".pairs" : ".sequences");
  }
  return "";
}

bool Wanted(const v1::StoredRollout& stored, const v1::ListRolloutsRequest& request) {
  const v1::Rollout& rollout = stored.rollout();
  const double reward = rollout.reward().reward();
  if (request.has_prompt() && rollout.group().prompt() != request.prompt()) return false;
  if (request.has_sibling() && rollout.sibling() != request.sibling()) return false;
  if (request.has_min_reward() && !(reward >= request.min_reward())) return false;
  if (request.has_max_reward() && !(reward <= request.max_reward())) return false;
  if (request.finish_reason() != v1::FINISH_REASON_UNSPECIFIED &&
      rollout.completion().finish_reason() != request.finish_reason()) {
    return false;
  }
  auto says = [&](const std::string& text) { return text.find(request.contains()) != std::string::npos; };
  return says(rollout.completion().text()) ||
         std::any_of(rollout.turns().begin(), rollout.turns().end(),
                     [&](const v1::Turn& turn) { return says(turn.text()); });
}

double SortKey(const v1::StoredRollout& stored, const std::string& sort) {
  if (sort == "reward") return stored.rollout().reward().reward();
  if (sort == "advantage") return stored.rollout().advantage();
  return static_cast<double>(stored.rollout().completion().token_ids_size());
}

// One name for a folder, however it was written.
std::string FolderOf(const std::string& output) {
  const fs::path path = fs::path(output).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).string();
}

absl::Status HasWeights(const std::string& key, const JobRecord& job, const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(key, ": job ", job.name, " (",
                                                 v1::JobState_Name(job.state).substr(10),
                                                 ") has left no weights in ", path));
}

}  // namespace

absl::StatusOr<v1::JobConfig> Controller::ResolveModel(v1::JobConfig config) {
  for (int i = 0; i < config.rewards_size(); ++i) {
    if (!config.rewards(i).model().has_job()) continue;
    v1::ModelReward& model = *config.mutable_rewards(i)->mutable_model();
    const std::string key = absl::StrCat("rewards.", i, ".model.job");
    REIN_ASSIGN_OR_RETURN(JobRecord * source, Find(model.job()));
    if (!source->config.has_reward_model()) {
      return absl::InvalidArgumentError(absl::StrCat(key, ": job ", source->name, " is ",
                                                     config::KindOf(source->config),
                                                     ", want one of kind reward_model"));
    }
    const v1::RewardModelConfig& trained = source->config.reward_model();
    const bool steps = trained.objective() == v1::REWARD_OBJECTIVE_STEPS;
    if (steps != model.has_steps() || (steps && trained.separator() != model.steps().separator())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "rewards.", i, ".model.steps: job ", source->name,
          steps ? absl::StrCat(" has learned steps that end with \"", absl::CEscape(trained.separator()),
                               "\": set steps: {separator: ...} to the same")
                : " has not learned steps: leave it out"));
    }
    model.set_path(absl::StrCat(source->output, "/model"));
    model.clear_job();
    REIN_RETURN_IF_ERROR(HasWeights(key, *source, model.path()));
  }
  if (!config.model().has_job()) return config;
  REIN_ASSIGN_OR_RETURN(JobRecord * source, Find(config.model().job()));
  std::string path = absl::StrCat(source->output, "/model");
  if (config.model().has_checkpoint()) {
    REIN_ASSIGN_OR_RETURN(auto checkpoints, store_->ReadCheckpoints(source->name));
    path.clear();
    std::string known;
    for (const v1::Checkpoint& checkpoint : checkpoints) {
      if (checkpoint.number() == config.model().checkpoint()) path = checkpoint.path();
      absl::StrAppend(&known, known.empty() ? "" : ", ", checkpoint.number());
    }
    if (path.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "model.checkpoint: job ", source->name, " has no checkpoint ",
          config.model().checkpoint(), known.empty() ? "" : absl::StrCat("; it has ", known)));
    }
  }
  REIN_RETURN_IF_ERROR(HasWeights("model.job", *source, path));
  config.mutable_model()->clear_job();
  config.mutable_model()->clear_checkpoint();
  config.mutable_model()->set_path(path);
  return config;
}

absl::StatusOr<v1::Job> Controller::Submit(const std::string& request_id,
                                           const v1::JobConfig& config,
                                           const std::string& owner) {
  for (const auto& job : jobs_) {
    if (job->name != config.name()) continue;
    if (!request_id.empty() && job->request_id == request_id) return ToProto(*job, true);
    return absl::AlreadyExistsError(absl::StrCat("job ", job->name, " exists already (",
                                                 v1::JobState_Name(job->state).substr(10),
                                                 "): give this one another name"));
  }
  auto job = std::make_unique<JobRecord>();
  job->name = config.name();
  job->request_id = request_id;
  job->owner = owner;
  job->config = config;
  job->config_hash = config::HashOf(config);
  job->submitted_at = Now();
  job->output = config.has_output() ? config.output()
                                    : absl::StrCat(options_.outputs.empty() ? options_.folder + "/jobs" : options_.outputs,
                                                   "/", config.name());
  const std::string output = FolderOf(job->output);
  for (const auto& other : jobs_) {
    if (HasEnded(other->state) || FolderOf(other->output) != output) continue;
    return absl::AlreadyExistsError(absl::StrCat("output: job ", other->owner == owner ? other->name : "of another tenant", " (",
                                                 v1::JobState_Name(other->state).substr(10), ") writes to ", output,
                                                 ": give this one another folder"));
  }
  v1::JobEvent event;
  event.set_time(Now());
  event.set_state(v1::JOB_STATE_QUEUED);
  event.set_detail(WhyItWaits(*job, Groups()));
  REIN_RETURN_IF_ERROR(store_->Transact([&]() -> absl::Status {
    REIN_RETURN_IF_ERROR(store_->InsertJob(*job));
    return store_->AppendEvent(job->name, event);
  }));
  jobs_.push_back(std::move(job));
  recorder_.OnState(*jobs_.back());
  return ToProto(*jobs_.back(), true);
}

v1::Job Controller::ToProto(const JobRecord& job, bool full, const ActorGroups& groups) {
  v1::Job proto;
  proto.set_name(job.name);
  proto.set_kind(config::KindOf(job.config));
  proto.set_state(job.state);
  proto.set_update(job.updates_done);
  proto.set_max_updates(job.max_updates);
  proto.set_submitted_at(job.submitted_at);
  proto.set_ended_at(job.ended_at);
  // Why a job waits changes with other jobs, so it is not stored.
  proto.set_message(job.state == v1::JOB_STATE_QUEUED ? WhyItWaits(job, groups) : job.message);
  proto.set_group(job.group);
  proto.set_config_hash(job.config_hash);
  proto.set_output(job.output);
  proto.set_owner(job.owner);
  if (!full) {
    *proto.mutable_metrics() = job.figures.metrics();
    return proto;
  }
  if (auto update = store_->ReadUpdate(job.name, job.updates_done);
      update.ok() && update->has_value()) {
    *proto.mutable_metrics() = (*update)->metrics();
  }
  proto.set_disk_bytes(DiskBytes(store_->RolloutFolder(job.name)) + DiskBytes(job.output));
  proto.set_config_yaml(config::ToYaml(job.config));
  *proto.mutable_config() = job.config;
  if (auto checkpoints = store_->ReadCheckpoints(job.name); checkpoints.ok()) {
    proto.mutable_checkpoints()->Add(checkpoints->begin(), checkpoints->end());
  }
  if (auto evals = store_->ReadEvals(job.name); evals.ok()) {
    proto.mutable_evals()->Add(evals->begin(), evals->end());
  }
  return proto;
}

absl::StatusOr<v1::Job> Controller::GetJob(const std::string& name) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(name));
  return ToProto(*job, true);
}

std::vector<v1::Job> Controller::ListJobs(const std::function<bool(const JobRecord&)>& wanted) {
  std::vector<v1::Job> jobs;
  const ActorGroups groups = Groups();
  for (auto job = jobs_.rbegin(); job != jobs_.rend(); ++job) {
    if (!wanted || wanted(**job)) jobs.push_back(ToProto(**job, false, groups));
  }
  return jobs;
}

absl::StatusOr<Controller::NewEvents> Controller::EventsAfter(const std::string& name,
                                                              uint64_t after) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(name));
  REIN_ASSIGN_OR_RETURN(auto events, store_->ReadEvents(job->name, after));
  return NewEvents{.job = job->name, .state = job->state, .events = std::move(events)};
}

absl::StatusOr<v1::Job> Controller::Cancel(const std::string& name) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(name));
  if (HasEnded(job->state) && job->state != v1::JOB_STATE_FAILED) return ToProto(*job, true);
  if (Running* running = RunningOf(*job)) {
    End(*running, {.state = v1::JOB_STATE_CANCELLED});
  } else {
    SetState(*job, v1::JOB_STATE_CANCELLED, "");
  }
  return ToProto(*job, true);
}

absl::StatusOr<v1::Job> Controller::Pause(const std::string& name) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(name));
  if (HasEnded(job->state)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job ", job->name, " has ended (", v1::JobState_Name(job->state).substr(10), ")"));
  }
  Running* running = RunningOf(*job);
  if (running == nullptr) {
    SetState(*job, v1::JOB_STATE_PAUSED, "");
  } else if (running->run != nullptr) {
    running->run->Pause();
    if (running->run->outcome().has_value()) StepRun(*running);  // it could not be stored
  } else {
    job->pausing = true;
    SetState(*job, job->state, "pauses once its data is read");
  }
  return ToProto(*job, true);
}

absl::StatusOr<v1::Job> Controller::Resume(const std::string& name,
                                           const std::vector<std::string>& overrides) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(name));
  bool active = job->state == v1::JOB_STATE_QUEUED || job->state == v1::JOB_STATE_STARTING ||
                job->state == v1::JOB_STATE_RUNNING;
  if (active && overrides.empty()) return ToProto(*job, true);  // a repeat
  if (job->state != v1::JOB_STATE_PAUSED && job->state != v1::JOB_STATE_FAILED) {
    return absl::FailedPreconditionError(absl::StrCat("job ", job->name, " is ",
                                                      v1::JobState_Name(job->state).substr(10),
                                                      ": only paused and failed jobs are resumed"));
  }
  for (Leftover gone : {Leftover::kRollouts, Leftover::kCheckpoints}) {
    if ((job->expired & static_cast<uint64_t>(gone)) == 0) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "job ", job->name, " cannot go on: its ", NameOf(gone), " were deleted by retention.", NameOf(gone),
        "_days; submit it again under another name"));
  }
  if (!overrides.empty()) {
    REIN_ASSIGN_OR_RETURN(v1::JobConfig changed,
                          config::ReadJob({.yaml = config::ToYaml(job->config),
                                           .file_name = absl::StrCat("job ", job->name),
                                           .overrides = overrides}));
    if (std::string fixed = FixedSetting(job->config, changed); !fixed.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a resumed job keeps ", fixed, ": submit a new job with model: {job: ", job->name, "}"));
    }
    job->config = std::move(changed);
    job->config_hash = config::HashOf(job->config);
  }
  job->skipped_in_row = 0;
  SetState(*job, v1::JOB_STATE_QUEUED, WhyItWaits(*job, Groups()));
  return ToProto(*job, true);
}

absl::StatusOr<v1::Job> Controller::DeleteCheckpoint(const std::string& name, uint32_t number) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(name));
  REIN_ASSIGN_OR_RETURN(auto checkpoints, store_->ReadCheckpoints(job->name));
  const v1::Checkpoint* doomed = nullptr;
  std::string known;
  for (const v1::Checkpoint& checkpoint : checkpoints) {
    if (checkpoint.number() == number) doomed = &checkpoint;
    absl::StrAppend(&known, known.empty() ? "" : ", ", checkpoint.number());
  }
  if (doomed == nullptr) {
    return absl::NotFoundError(absl::StrCat("job ", job->name, " has no checkpoint ", number,
                                            known.empty() ? "" : absl::StrCat("; it has ", known)));
  }
  const bool final = job->state == v1::JOB_STATE_SUCCEEDED || job->state == v1::JOB_STATE_CANCELLED;
  const bool runs = RunningOf(*job) != nullptr;
  if (runs || (!final && doomed == &checkpoints.back())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job ", job->name, " is ", v1::JobState_Name(job->state).substr(10), " and may go on from ",
        runs ? "its checkpoints" : absl::StrCat("checkpoint ", number)));
  }
  REIN_RETURN_IF_ERROR(store_->Transact([&] { return store_->DeleteCheckpoint(job->name, number); }));
  recorder_.RemoveCheckpoint(doomed->path());
  return ToProto(*job, true);
}

absl::StatusOr<v1::ListUpdatesReply> Controller::ListUpdates(
    const v1::ListUpdatesRequest& request) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(request.name()));
  REIN_ASSIGN_OR_RETURN(auto records, store_->ReadUpdates(job->name, request.after()));
  // A resumed job makes some updates again: what lies beyond was taken back.
  std::erase_if(records, [job](const auto& record) { return record.update() > job->updates_done; });
  const size_t limit = request.limit() > 0 ? request.limit() : records.size();
  const size_t first = records.size() > limit ? records.size() - limit : 0;
  v1::ListUpdatesReply reply;
  reply.mutable_updates()->Add(records.begin() + static_cast<std::ptrdiff_t>(first), records.end());
  for (v1::UpdateRecord& record : *reply.mutable_updates()) {
    if (!request.spans()) record.clear_spans();
  }
  return reply;
}

absl::StatusOr<Ledger*> Controller::LedgerOf(const JobRecord& job, std::unique_ptr<Ledger>& owned) {
  if (Running* running = RunningOf(job); running != nullptr && running->run != nullptr) return &running->run->ledger();
  REIN_ASSIGN_OR_RETURN(owned, Ledger::Open(*store_, job.name));
  return owned.get();
}

void Controller::Measure() {
  recorder_.OnActors(ListActors());
  std::map<v1::JobState, int> jobs;
  for (const auto& job : jobs_) ++jobs[job->state];
  std::error_code error;
  recorder_.OnStore(jobs, fs::space(options_.folder, error));
  for (const auto& [group, running] : running_) {
    if (running.run == nullptr) continue;
    std::optional<v1::Checkpoint> newest;
    auto checkpoints = store_->ReadCheckpoints(running.job->name);
    if (checkpoints.ok() && !checkpoints->empty()) newest = checkpoints->back();
    recorder_.OnLedger(*running.job, running.run->ledger().Summary(), newest);
  }
}

absl::StatusOr<v1::LedgerSummary> Controller::GetLedger(const std::string& name) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(name));
  std::unique_ptr<Ledger> owned;
  REIN_ASSIGN_OR_RETURN(Ledger * ledger, LedgerOf(*job, owned));
  return ledger->Summary();
}

absl::StatusOr<v1::ListRolloutsReply> Controller::ListRollouts(
    const v1::ListRolloutsRequest& request) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(request.name()));
  std::string sort = request.sort();
  bool descending = sort.empty() || sort[0] != '-';
  if (!descending) sort = sort.substr(1);
  if (!sort.empty() && sort != "reward" && sort != "advantage" && sort != "length") {
    return absl::InvalidArgumentError(
        absl::StrCat("sort: wants reward, advantage or length, got '", sort, "'"));
  }
  std::unique_ptr<Ledger> owned;
  REIN_ASSIGN_OR_RETURN(Ledger * ledger, LedgerOf(*job, owned));
  v1::ListRolloutsReply reply;
  reply.set_update(request.update() > 0 ? request.update() : job->updates_done);
  std::vector<v1::StoredRollout> rollouts;
  uint64_t deleted = 0;
  for (uint64_t order : ledger->GroupsOf(reply.update())) {
    const std::vector<Sibling>& siblings = ledger->Find(order)->siblings;
    for (uint32_t i = 0; i < siblings.size(); ++i) {
      if (!siblings[i].stored) {
        ++deleted;
        continue;
      }
      REIN_ASSIGN_OR_RETURN(v1::StoredRollout stored, ledger->Read(order, i));
      if (Wanted(stored, request)) rollouts.push_back(std::move(stored));
    }
  }
  if (rollouts.empty() && deleted > 0 && (job->expired & static_cast<uint64_t>(Leftover::kRollouts)) != 0) {
    return absl::NotFoundError(absl::StrCat("the rollouts of ", job->name, " were deleted ",
                                            job->config.retention().rollouts_days(),
                                            " days after its end: retention.rollouts_days"));
  }
  if (rollouts.empty() && deleted > 0) {
    return absl::NotFoundError(absl::StrCat(
        "the ", deleted, " rollouts of update ", reply.update(),
        " were deleted: checkpoint.keep_rollouts keeps those of the last ",
        job->config.checkpoint().keep_rollouts(), " updates before the newest checkpoint"));
  }
  if (!sort.empty()) {
    std::stable_sort(rollouts.begin(), rollouts.end(), [&](const auto& a, const auto& b) {
      return descending ? SortKey(a, sort) > SortKey(b, sort) : SortKey(a, sort) < SortKey(b, sort);
    });
  }
  reply.set_matching(static_cast<uint32_t>(rollouts.size()));
  size_t limit = request.limit() > 0 ? request.limit() : kDefaultRollouts;
  for (size_t i = 0; i < std::min(limit, rollouts.size()); ++i) {
    v1::Rollout* rollout = rollouts[i].mutable_rollout();
    rollout->mutable_completion()->clear_expert_choices();  // for the trainer alone
    if (!request.tokens()) {
      rollout->clear_prompt_token_ids();
      rollout->clear_reference_logprobs();
      rollout->clear_policy_logprobs();
      rollout->clear_policy_entropies();
      v1::Completion* completion = rollout->mutable_completion();
      completion->clear_behaviour_logprobs();
      completion->clear_untempered_logprobs();
    }
    *reply.add_rollouts() = std::move(rollouts[i]);
  }
  return reply;
}

}  // namespace rein::services
