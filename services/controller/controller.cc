#include "services/controller/controller.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"

#include "common/config/corpus_split.h"
#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/config/name.h"
#include "common/config/nearest_name.h"
#include "common/config/yaml_writer.h"
#include "common/status/status_macros.h"

namespace rein::services {

bool HasEnded(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

absl::StatusOr<std::unique_ptr<Controller>> Controller::Create(ControllerOptions options,
                                                               const sync::Clock& clock,
                                                               ActorConnector& connector,
                                                               JobRecorder& recorder,
                                                               std::function<void()> wake) {
  auto controller = std::unique_ptr<Controller>(
      new Controller(std::move(options), clock, connector, recorder, std::move(wake)));
  REIN_ASSIGN_OR_RETURN(controller->store_, Store::Open({.folder = controller->options_.folder,
                                                            .postgres = controller->options_.postgres}));
  REIN_ASSIGN_OR_RETURN(controller->registry_, ActorRegistry::Open(*controller->store_, clock,
                                                                   controller->options_.lease));
  REIN_ASSIGN_OR_RETURN(std::vector<JobRecord> jobs, controller->store_->ReadJobs());
  for (JobRecord& job : jobs) {
    controller->jobs_.push_back(std::make_unique<JobRecord>(std::move(job)));
    recorder.OnState(*controller->jobs_.back());
  }
  return controller;
}

Controller::~Controller() {
  for (auto& [group, running] : running_) *running.unwanted = true;
}

absl::Time Controller::Step() {
  const absl::Time house = KeepHouse();
  return std::min(house, StepJobs());
}

absl::Time Controller::StepJobs() {
  absl::Time until = registry_->ExpireLeases();
  std::erase_if(unwanted_, [](const Opening& opening) {
    return opening.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  });
  StartJobs();
  std::vector<Running*> all;  // a step may end its job
  for (auto& [group, running] : running_) all.push_back(&running);
  for (Running* running : all) until = std::min(until, StepGroup(*running));
  return until;
}

absl::Time Controller::StepGroup(Running& running) {
  if (running.opening.valid()) {
    if (running.opening.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
      return clock_.Now() + absl::Milliseconds(20);
    }
    BeginRun(running);
    return clock_.Now();
  }
  const absl::Time until = running.run->Step();
  const bool ends = running.run->outcome().has_value();
  StepRun(running);
  return ends ? clock_.Now() : until;
}

ActorGroups Controller::Groups() const {
  ActorGroups groups;
  for (const auto& [name, has_trainer] : registry_->Groups()) groups[name].has_trainer = has_trainer;
  for (const auto& [name, running] : running_) groups[name].runs = running.job;
  return groups;
}

Controller::Running* Controller::RunningOf(const JobRecord& job) {
  auto found = std::find_if(running_.begin(), running_.end(), [&](const auto& one) { return one.second.job == &job; });
  return found == running_.end() ? nullptr : &found->second;
}

std::vector<v1::Actor> Controller::ListActors(const std::function<bool(const JobRecord&)>& shows) const {
  std::vector<v1::Actor> actors = registry_->Actors();
  for (v1::Actor& actor : actors) {
    auto running = running_.find(actor.group());
    if (running == running_.end()) continue;
    const JobRecord& job = *running->second.job;
    if (!shows || shows(job)) actor.set_job(job.name);
  }
  return actors;
}

std::vector<v1::Actor> Controller::ActorsOf(const std::string& job) const {
  for (const auto& [group, running] : running_) {
    if (running.job->name == job) return registry_->ActorsOf(group);
  }
  return registry_->Actors();
}

void Controller::StartJobs() {
  for (const auto& job : jobs_) {  // those that ran when the controller stopped
    const bool active = job->state == v1::JOB_STATE_STARTING || job->state == v1::JOB_STATE_RUNNING;
    if (!active || RunningOf(*job) != nullptr) continue;
    const std::string group = job->group.empty() ? config::kDefaultGroup : job->group;  // none: of an older store
    if (running_.count(group) == 0) StartJob(*job, group);
  }
  ActorGroups groups = Groups();
  std::erase_if(groups, [](const auto& group) { return !group.second.has_trainer || group.second.runs != nullptr; });
  for (const auto& job : jobs_) {
    if (groups.empty()) return;  // most often at once: the rest may be thousands
    if (job->state != v1::JOB_STATE_QUEUED) continue;
    if (std::optional<std::string> group = GroupFor(*job, groups)) {
      StartJob(*job, *group);
      groups.erase(*group);
    }
  }
}

void Controller::StartJob(JobRecord& job, const std::string& group) {
  job.group = group;
  SetState(job, v1::JOB_STATE_STARTING, "reads the data");
  Running& running = running_[group];
  running.job = &job;
  running.unwanted = std::make_shared<std::atomic<bool>>(false);
  const bool begun = job.updates_done > 0;
  running.opening = std::async(std::launch::async, [wake = wake_, begun, config = job.config, unwanted = running.unwanted] {
    auto sources = OpenSources(config);
    if (sources.ok() && sources->train != nullptr && !begun) {
      auto told = CheckOtherPrompts(config, *sources->train, [&] { return !unwanted->load(); });
      if (told.ok()) sources->told = *std::move(told);
      else sources = told.status();
    }
    wake();
    return sources;
  });
}

absl::StatusOr<Controller::Sources> Controller::OpenSources(const v1::JobConfig& config) {
  Sources sources;
  if (config.has_pretrain()) {
    REIN_ASSIGN_OR_RETURN(sources.train, OpenCorpus(config, /*held_out=*/false));
    if (!config::HoldsOut(config)) return sources;
    REIN_ASSIGN_OR_RETURN(auto held_out, OpenCorpus(config, /*held_out=*/true));
    sources.held_out.emplace_back("held-out", std::move(held_out));
    return sources;
  }
  if (const v1::DatasetConfig* data = config::DataOf(config)) {
    REIN_ASSIGN_OR_RETURN(sources.train, OpenPrompts(*data, config.model(), TrainPrompts(config)));
  }
  if (config::DataOf(config) == &config.data().eval()) return sources;
  auto hold_out = [&](const v1::DatasetConfig& data, const std::string& name) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(auto prompts, OpenPrompts(data, config.model(), HeldOutPrompts(config)));
    sources.held_out.emplace_back(name, std::move(prompts));
    return absl::OkStatus();
  };
  if (config.data().has_eval()) {
    const v1::DatasetConfig& data = config.data().eval();
    REIN_RETURN_IF_ERROR(hold_out(data, data.has_name() ? data.name() : "eval"));
  }
  for (const v1::DatasetConfig& data : config.eval().datasets()) {
    REIN_RETURN_IF_ERROR(hold_out(data, data.name()));
  }
  return sources;
}

void Controller::BeginRun(Running& running) {
  absl::StatusOr<Sources> sources = running.opening.get();
  if (!sources.ok()) return End(running, {.message = std::string(sources.status().message())});
  running.sources = *std::move(sources);
  if (!running.sources.told.empty()) SetState(*running.job, running.job->state, running.sources.told);
  std::vector<HeldOutData> held_out;
  for (const auto& [name, prompts] : running.sources.held_out) {
    held_out.push_back({.name = name, .prompts = prompts.get()});
  }
  auto run = RunLoop::Begin({.store = *store_,
                             .registry = *registry_,
                             .connector = connector_,
                             .clock = clock_,
                             .recorder = recorder_,
                             .group = running.job->group,
                             .train = running.sources.train.get(),
                             .held_out = std::move(held_out),
                             .wake = wake_},
                            *running.job);
  if (!run.ok()) return End(running, {.message = std::string(run.status().message())});
  running.run = *std::move(run);
}

void Controller::StepRun(Running& running) {
  JobRecord& job = *running.job;
  if (running.run->outcome().has_value()) return End(running, *running.run->outcome());
  std::string message = running.run->waits_for();
  bool started = running.run->trainer_loaded();
  v1::JobState state = started ? v1::JOB_STATE_RUNNING : job.state;
  if (!started && message.empty()) message = "the services load the model";
  if (state == job.state && message == job.message) return;
  SetState(job, state, message);
}

void Controller::SetState(JobRecord& job, v1::JobState state, const std::string& message) {
  bool changed = job.state != state;
  job.state = state;
  job.message = message;
  job.ended_at = HasEnded(state) ? Now() : 0;
  const bool active = state == v1::JOB_STATE_STARTING || state == v1::JOB_STATE_RUNNING;
  job.pausing = job.pausing && active;
  if (!active) job.group.clear();
  v1::JobEvent event;
  event.set_time(Now());
  event.set_state(state);
  event.set_detail(message);
  // Where it fails memory goes on; the next change tries again.
  store_
      ->Transact([&]() -> absl::Status {
        REIN_RETURN_IF_ERROR(store_->UpdateJob(job));
        return changed || !message.empty() ? store_->AppendEvent(job.name, event) : absl::OkStatus();
      })
      .IgnoreError();
  if (changed) recorder_.OnState(job);
}

std::string Controller::WhatIsKept(const JobRecord& job) {
  std::vector<std::string> kept;
  auto checkpoints = store_->ReadCheckpoints(job.name);
  if (checkpoints.ok() && !checkpoints->empty()) {
    kept.push_back(absl::StrCat("checkpoint ", checkpoints->back().number(), " (update ",
                                checkpoints->back().update(), ") is intact"));
  }
  if (const Running* running = RunningOf(job); running != nullptr && running->run != nullptr) {
    uint64_t rollouts = running->run->ledger().Summary().rollouts_stored();
    if (rollouts > 0) kept.push_back(absl::StrCat(rollouts, " rollouts are kept"));
  }
  std::string text;
  for (const std::string& part : kept) absl::StrAppend(&text, text.empty() ? "\n" : "; ", part);
  return text;
}

void Controller::End(Running& running, Outcome outcome) {
  JobRecord& job = *running.job;
  // What the last step wrote stays if it can be made durable.
  const absl::Status kept = running.run == nullptr ? store_->Commit() : running.run->Commit();
  if (!kept.ok()) store_->database().Rollback();
  if (!kept.ok() && outcome.state == v1::JOB_STATE_SUCCEEDED) outcome = Outcome{.message = std::string(kept.message())};
  std::string message = outcome.message;
  if (outcome.state == v1::JOB_STATE_FAILED) {
    message = absl::StrCat("at update ", job.updates_done, ": ", message, WhatIsKept(job));
  }
  *running.unwanted = true;
  if (running.opening.valid()) unwanted_.push_back(std::move(running.opening));
  running_.erase(job.group);
  Reread(job);
  SetState(job, outcome.state, message);
}

// What a failed commit took back is taken back here too, so that a resumed job agrees with its ledger.
void Controller::Reread(JobRecord& job) {
  absl::StatusOr<std::vector<JobRecord>> stored = store_->ReadJobs();
  if (!stored.ok()) return;
  for (JobRecord& record : *stored) {
    if (record.name == job.name) job = std::move(record);
  }
}

absl::StatusOr<JobRecord*> Controller::Find(const std::string& name) {
  std::vector<JobRecord*> matches;
  std::vector<std::string> names;
  for (const auto& job : jobs_) {
    if (job->name == name) return job.get();
    if (!name.empty() && job->name.rfind(name, 0) == 0) matches.push_back(job.get());
    names.push_back(job->name);
  }
  if (matches.size() == 1) return matches.front();
  if (matches.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(matches.size(), " jobs begin with ", name, ": ",
                                                   matches[0]->name, ", ", matches[1]->name,
                                                   matches.size() > 2 ? ", ..." : ""));
  }
  std::string nearest = config::NearestName(name, names);
  return absl::NotFoundError(absl::StrCat(
      "no job ", name, nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?")));
}

}  // namespace rein::services
