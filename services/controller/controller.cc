#include "services/controller/controller.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"

#include "common/config/corpus_split.h"
#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
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

Controller::~Controller() { stopping_ = true; }

absl::Time Controller::Step() {
  const absl::Time house = KeepHouse();
  return std::min(house, StepJobs());
}

absl::Time Controller::StepJobs() {
  if (running_.job == nullptr) StartNext();
  if (running_.job == nullptr) return registry_->ExpireLeases();
  if (running_.opening.valid()) {
    if (running_.opening.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
      return std::min(registry_->ExpireLeases(), clock_.Now() + absl::Milliseconds(20));
    }
    BeginRun();
    return clock_.Now();
  }
  absl::Time until = running_.run->Step();
  StepRun();
  return running_.job == nullptr ? clock_.Now() : until;
}

void Controller::StartNext() {
  // One that was running when the controller stopped comes first.
  JobRecord* next = nullptr;
  for (const auto& job : jobs_) {
    bool active = job->state == v1::JOB_STATE_STARTING || job->state == v1::JOB_STATE_RUNNING;
    if (active || (next == nullptr && job->state == v1::JOB_STATE_QUEUED)) next = job.get();
    if (active) break;
  }
  if (next == nullptr) return;
  SetState(*next, v1::JOB_STATE_STARTING, "reads the data");
  running_ = Running{.job = next};
  const bool begun = next->updates_done > 0;
  running_.opening = std::async(std::launch::async, [this, begun, config = next->config] {
    auto sources = OpenSources(config);
    if (sources.ok() && sources->train != nullptr && !begun) {
      auto told = CheckOtherPrompts(config, *sources->train, [this] { return !stopping_.load(); });
      if (told.ok()) sources->told = *std::move(told);
      else sources = told.status();
    }
    wake_();
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

void Controller::BeginRun() {
  absl::StatusOr<Sources> sources = running_.opening.get();
  if (!sources.ok()) return End({.message = std::string(sources.status().message())});
  running_.sources = *std::move(sources);
  if (!running_.sources.told.empty()) SetState(*running_.job, running_.job->state, running_.sources.told);
  std::vector<HeldOutData> held_out;
  for (const auto& [name, prompts] : running_.sources.held_out) {
    held_out.push_back({.name = name, .prompts = prompts.get()});
  }
  auto run = RunLoop::Begin({.store = *store_,
                             .registry = *registry_,
                             .connector = connector_,
                             .clock = clock_,
                             .recorder = recorder_,
                             .train = running_.sources.train.get(),
                             .held_out = std::move(held_out),
                             .wake = wake_},
                            *running_.job);
  if (!run.ok()) return End({.message = std::string(run.status().message())});
  running_.run = *std::move(run);
}

void Controller::StepRun() {
  JobRecord& job = *running_.job;
  if (running_.run->outcome().has_value()) return End(*running_.run->outcome());
  std::string message = running_.run->waits_for();
  bool started = running_.run->trainer_loaded();
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
  job.pausing = job.pausing && (state == v1::JOB_STATE_STARTING || state == v1::JOB_STATE_RUNNING);
  v1::JobEvent event;
  event.set_time(Now());
  event.set_state(state);
  event.set_detail(message);
  absl::Status status = store_->UpdateJob(job);
  if (status.ok() && (changed || !message.empty())) status = store_->AppendEvent(job.name, event);
  if (status.ok()) status = store_->Commit();
  if (!status.ok()) store_->database().Rollback();  // memory goes on; the next change tries again
  if (changed) recorder_.OnState(job);
}

std::string Controller::WhatIsKept(const JobRecord& job) {
  std::vector<std::string> kept;
  auto checkpoints = store_->ReadCheckpoints(job.name);
  if (checkpoints.ok() && !checkpoints->empty()) {
    kept.push_back(absl::StrCat("checkpoint ", checkpoints->back().number(), " (update ",
                                checkpoints->back().update(), ") is intact"));
  }
  if (running_.run != nullptr) {
    uint64_t rollouts = running_.run->ledger().Summary().rollouts_stored();
    if (rollouts > 0) kept.push_back(absl::StrCat(rollouts, " rollouts are kept"));
  }
  std::string text;
  for (const std::string& part : kept) absl::StrAppend(&text, text.empty() ? "\n" : "; ", part);
  return text;
}

void Controller::End(Outcome outcome) {
  JobRecord& job = *running_.job;
  std::string message = outcome.message;
  if (outcome.state == v1::JOB_STATE_FAILED) {
    message = absl::StrCat("at update ", job.updates_done, ": ", message, WhatIsKept(job));
  }
  // What the last step wrote stays if it can be made durable.
  bool synced = running_.run == nullptr || running_.run->ledger().Sync().ok();
  if (!synced || !store_->Commit().ok()) store_->database().Rollback();
  running_.run.reset();
  Reread(job);
  SetState(job, outcome.state, message);
  running_ = Running{};
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
