#include "tests/simulation/sim_world.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::simulation {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kLease = absl::Seconds(10);
constexpr absl::Duration kFaultTime = absl::Minutes(5);
constexpr absl::Duration kLongest = absl::Hours(3);
constexpr uint64_t kTrainPrompts = 18, kHeldOutPrompts = 3;
constexpr uint32_t kUpdates = 6, kGroups = 4, kSiblings = 3;

}  // namespace

SimWorld::SimWorld(SimOptions options)
    : options_(std::move(options)),
      clock_(absl::FromUnixSeconds(1000000)),
      queue_(clock_),
      random_(options_.seed),
      connector_(MakeSimConnector(*this)) {
  fs::remove_all(options_.folder);
  for (int i = 0; i < options_.groups; ++i) {
    auto job = std::make_unique<SimJob>(SimJob{.group = i == 0 ? "default" : absl::StrCat("group-", i),
                                               .train = fakes::FakePrompts(kTrainPrompts),
                                               .held_out = fakes::FakePrompts(kHeldOutPrompts)});
    job->job.name = absl::StrCat("simulated-", i);
    AddProcesses(job->group);
    jobs_.push_back(std::move(job));
  }
}

void SimWorld::AddProcesses(const std::string& group) {
  for (const auto& [role, count] : {std::pair<std::string, int>{"trainer", 1},
                                    {"rollout", 2},
                                    {"reference", options_.reference ? 1 : 0},
                                    {"reward", 2},
                                    {"environment", options_.episodes ? 1 : 0}}) {
    for (int i = 0; i < count; ++i) {
      auto process = std::make_unique<SimProcess>();
      process->role = role;
      process->group = group;
      process->name = absl::StrCat(group, "-", role, "-", i);
      processes_[process->name] = std::move(process);
    }
  }
}

SimWorld::~SimWorld() {
  StopController();
  fs::remove_all(options_.folder);
}

v1::JobConfig SimWorld::MakeConfig(const SimJob& job) const {
  v1::JobConfig config;
  config.set_name(job.job.name);
  config.set_seed(7);
  config.mutable_data()->mutable_train()->set_file("train");
  config.mutable_data()->mutable_eval()->set_file("held out");
  config.mutable_data()->set_shuffle(true);
  config.mutable_eval()->set_every(3);
  config.mutable_checkpoint()->set_every(2);
  config.mutable_checkpoint()->set_keep(2);
  config.mutable_failure()->set_max_attempts(2);
  config.add_rewards()->mutable_numeric();
  if (options_.texts) {
    config.mutable_sft()->set_updates(kUpdates);
    config.mutable_sft()->set_sequences(kGroups);
    return config;
  }
  v1::GrpoConfig& grpo = *config.mutable_grpo();
  grpo.set_updates(kUpdates);
  grpo.set_prompts(kGroups);
  grpo.set_group_size(kSiblings);
  grpo.set_staleness(options_.staleness);
  grpo.set_when_stale(options_.when_stale);
  if (options_.drains) config.mutable_rollout()->set_in_flight(v1::IN_FLIGHT_FINISH);
  if (options_.reference) grpo.mutable_kl()->set_coefficient(0.1);
  if (!options_.episodes) return config;
  v1::EnvironmentConfig& environment = *config.mutable_environment();
  environment.mutable_remote()->set_address(absl::StrCat(job.group, "-environment-0"));
  environment.set_max_turns(8);
  environment.set_timeout_seconds(100000);  // or faults would decide which turns there are
  environment.set_step_timeout_seconds(60);
  environment.set_concurrency(5);
  config.mutable_failure()->set_max_attempts(12);
  config.add_rewards()->mutable_environment();
  return config;
}

bool SimWorld::Loses() {
  if (controller_dying_) return true;
  if (registry_ == nullptr) return false;
  if (!options_.faults || clock_.Now() > faults_end_) return false;
  // Now and then the sender of this very message dies: before it leaves, or after.
  if (random_.Chance(0.004)) {
    controller_dying_ = true;
    store_->database().Abandon();
    return random_.Chance(0.5);
  }
  return random_.Chance(0.03);
}

absl::Duration SimWorld::Delay() {
  bool slow = options_.faults && random_.Chance(0.02);
  return random_.Between(absl::Milliseconds(1), slow ? absl::Seconds(8) : absl::Milliseconds(50));
}

SimTruth& SimWorld::truth_of(const std::string& group) {
  return (*std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& job) { return job->group == group; }))->truth;
}

std::string SimWorld::Violation() const {
  for (const auto& job : jobs_) {
    if (!job->truth.violations.empty()) return absl::StrCat(job->job.name, ": ", job->truth.violations.front());
  }
  return "";
}

void SimWorld::CheckGenerate(const std::string& at, const v1::GenerateRequest& request) {
  for (const auto& job : jobs_) {
    if (job->group != at) continue;
    if (request.fence().job() != job->job.name) {
      job->truth.violations.push_back(absl::StrCat(at, " gets work of ", request.fence().job()));
    }
    if (request.group().attempt() > 0 || job->run == nullptr) return;  // held out
    for (const auto& [order, group] : job->run->ledger().groups()) {
      if (group.id.SerializeAsString() != request.group().SerializeAsString()) continue;
      for (uint32_t sibling : request.siblings()) {
        if (group.siblings[sibling].stored) {
          job->truth.violations.push_back(absl::StrCat("group ", order, " sibling ", sibling,
                                                       " is generated again though it is stored"));
        }
      }
    }
  }
}

absl::Status SimWorld::StartJob(SimJob& job, const std::vector<services::JobRecord>& stored) {
  auto found = std::find_if(stored.begin(), stored.end(), [&](const auto& one) { return one.name == job.job.name; });
  if (found == stored.end()) {
    job.job.config = MakeConfig(job);
    job.job.output = "/" + job.job.name;
    job.job.group = job.group;
    REIN_RETURN_IF_ERROR(store_->Transact([&] { return store_->InsertJob(job.job); }));
  } else {
    job.job = *found;
  }
  if (job.ended) return absl::OkStatus();
  if (job.job.group != job.group) return absl::InternalError(job.job.name + " has lost its group");
  REIN_ASSIGN_OR_RETURN(job.run, services::RunLoop::Begin({.store = *store_,
                                                           .registry = *registry_,
                                                           .connector = *connector_,
                                                           .clock = clock_,
                                                           .recorder = job.recorder,
                                                           .group = job.group,
                                                           .train = &job.train,
                                                           .held_out = {{"eval", &job.held_out}},
                                                           .wake = [this] { wake_ = true; }},
                                                          job.job));
  return absl::OkStatus();
}

void SimWorld::StartController() {
  controller_dying_ = false;
  auto store = services::Store::Open({.folder = options_.folder, .durable = false});
  if (!store.ok()) return Violated(store.status().ToString());
  store_ = *std::move(store);
  auto registry = services::ActorRegistry::Open(*store_, clock_, kLease);
  auto jobs = store_->ReadJobs();
  if (!registry.ok() || !jobs.ok()) return Violated("the store does not open");
  registry_ = *std::move(registry);
  for (const auto& job : jobs_) {
    if (absl::Status started = StartJob(*job, *jobs); !started.ok()) return Violated(started.ToString());
  }
  ++controller_starts_;
  wake_ = true;
}

void SimWorld::StopController() {
  for (const auto& job : jobs_) job->run.reset();
  registry_.reset();
  if (store_ != nullptr) store_->database().Rollback();
  store_.reset();
}

void SimWorld::StartProcess(SimProcess& process) {
  ++process.life;
  process.alive = true;
  process.frozen_until = absl::InfinitePast();
  process.guard = std::make_unique<rpc::FenceGuard>(clock_);
  process.episodes.clear();
  if (process.role == "trainer") process.trainer = std::make_unique<SimTrainerService>(truth_of(process.group));
  if (process.role == "rollout" || process.role == "reference") {
    process.model = std::make_unique<SimModelService>();
  }
  if (process.role != "environment") Beat(process, process.life);
}

// What LeaseClient does, without its thread.
void SimWorld::Beat(SimProcess& process, uint64_t life) {
  if (!process.alive || process.life != life) return;
  absl::Duration frozen = process.frozen_until - clock_.Now();
  absl::Duration next = frozen > absl::ZeroDuration() ? frozen : kLease / 3;
  bool lost = registry_ == nullptr || (options_.faults && random_.Chance(0.03));
  if (frozen <= absl::ZeroDuration() && !lost) {
    absl::Time lease_end = clock_.Now() + kLease;
    if (process.guard->actor_epoch() == 0) {
      v1::RegisterRequest request;
      request.set_role(process.role);
      request.set_name(process.name);
      request.set_group(process.group);
      request.set_address("simulated");
      request.set_device("cpu");
      request.set_incarnation(absl::StrCat(process.name, "/", life));
      auto reply = registry_->Register(request);
      if (reply.ok()) {
        process.guard->Enroll(reply->controller_epoch(), reply->actor_epoch(), lease_end);
      }
    } else {
      v1::HeartbeatRequest request;
      request.set_name(process.name);
      request.set_actor_epoch(process.guard->actor_epoch());
      auto reply = registry_->Heartbeat(request);
      if (reply.ok()) {
        process.guard->ExtendLease(reply->controller_epoch(), lease_end);
      } else {
        process.guard->Expel();
        next = absl::Milliseconds(10);
      }
    }
    wake_ = true;
  } else if (lost) {
    next = absl::Milliseconds(300);
  }
  queue_.After(next, [this, &process, life] { Beat(process, life); });
}

void SimWorld::ScheduleFaults() {
  if (!options_.faults || clock_.Now() > faults_end_) return;
  queue_.After(random_.Between(absl::Seconds(1), absl::Seconds(25)), [this] {
    Fault();
    ScheduleFaults();
  });
}

void SimWorld::Fault() {
  uint64_t which = random_.Below(processes_.size() + 1);
  if (which == processes_.size()) {
    controller_dying_ = registry_ != nullptr;
    return;
  }
  auto victim = processes_.begin();
  std::advance(victim, static_cast<std::ptrdiff_t>(which));
  SimProcess& process = *victim->second;
  if (!process.alive) return;
  ++crashes_;
  if (random_.Chance(0.3)) {  // SIGSTOP, for up to four leases
    process.frozen_until = clock_.Now() + random_.Between(absl::Seconds(1), 4 * kLease);
    return;
  }
  process.alive = false;
  queue_.After(random_.Between(absl::Milliseconds(200), absl::Seconds(8)),
               [this, &process] { StartProcess(process); });
}

std::string SimWorld::Play() {
  faults_end_ = clock_.Now() + kFaultTime;
  const absl::Time give_up = clock_.Now() + kLongest;
  StartController();
  for (auto& [name, process] : processes_) StartProcess(*process);
  ScheduleFaults();
  while (Violation().empty()) {
    if (std::optional<std::string> verdict = StepJobs(std::exchange(wake_, false))) return *verdict;
    if (controller_dying_) {
      ++crashes_;
      StopController();
      controller_dying_ = false;
      queue_.After(random_.Between(absl::Milliseconds(100), absl::Seconds(15)),
                   [this] { StartController(); });
    }
    if (clock_.Now() > give_up) {
      std::string wedged = registry_ == nullptr ? "no controller" : "wedged";
      for (const auto& job : jobs_) {
        absl::StrAppend(&wedged, "; ", job->job.name, " at update ", job->job.updates_done, ": ",
                        job->run == nullptr ? "" : job->run->waits_for());
      }
      return wedged;
    }
    absl::Time step_at = absl::InfiniteFuture();
    for (const auto& job : jobs_) {
      if (job->run != nullptr) step_at = std::min(step_at, job->until);
    }
    if (step_at < queue_.Next()) {
      clock_.AdvanceTo(step_at);
    } else {
      queue_.PlayOne();
    }
  }
  return Violation();
}

// As the controller does: each run steps in its turn, and one that has ended is ended before the next.
std::optional<std::string> SimWorld::StepJobs(bool all) {
  bool open = false;
  for (const auto& job : jobs_) {
    if (registry_ == nullptr) return std::nullopt;
    if (job->run != nullptr && (all || clock_.Now() >= job->until)) {
      job->until = job->run->Step();
      if (controller_dying_) return std::nullopt;
      if (job->run->outcome().has_value()) {
        if (!job->run->Commit().ok()) store_->database().Rollback();
        if (std::string wrong = Verdict(*job); !wrong.empty()) return absl::StrCat(job->job.name, ": ", wrong);
        job->ended = true;
        job->run.reset();
      }
      if (store_->database().HasOpenWrites()) return job->job.name + " leaves writes open to others";
    }
    open |= !job->ended;
  }
  if (open) return std::nullopt;
  return Violation();
}

std::string SimWorld::Verdict(SimJob& one) {
  const services::Outcome& outcome = *one.run->outcome();
  if (outcome.state != v1::JOB_STATE_SUCCEEDED) return absl::StrCat("failed: ", outcome.message);
  if (std::string violation = Violation(); !violation.empty()) return violation;
  if (one.job.updates_done != kUpdates) return absl::StrCat("ended at update ", one.job.updates_done);
  if (one.job.cursor_epoch == 0) return "no whole pass over the data was made";
  if (one.recorder.evals.size() < 3) return absl::StrCat(one.recorder.evals.size(), " held-out results");
  auto reopened = services::Ledger::Open(*store_, one.job.name);
  if (!reopened.ok()) return reopened.status().ToString();
  std::string in_memory = CheckLedger(one, one.run->ledger());
  return in_memory.empty() ? CheckLedger(one, **reopened) : in_memory;
}

std::string SimWorld::CheckLedger(const SimJob& one, const services::Ledger& ledger) const {
  std::set<std::pair<uint64_t, uint64_t>> seen;
  std::map<uint64_t, uint64_t> by_update;
  for (const auto& [order, group] : ledger.groups()) {
    if (!seen.emplace(group.id.data_epoch(), group.id.prompt()).second) {
      return absl::StrCat("prompt ", group.id.prompt(), " was issued twice in one pass");
    }
    bool consumed = group.state == services::GroupState::kConsumed;
    bool dropped = group.state == services::GroupState::kDropped;
    if (consumed) ++by_update[group.update];
    const bool bounded = !options_.texts && options_.when_stale != v1::STALE_POLICY_CORRECT;
    if (consumed && bounded && group.version.number() + 1 + options_.staleness < group.update) {
      return absl::StrCat("group ", order, " of version ", group.version.number(), " went into update ", group.update);
    }
    if (dropped && group.reason.empty()) return absl::StrCat("group ", order, " has no reason");
    bool whole_pass = group.id.data_epoch() < one.job.cursor_epoch;
    bool ahead = options_.staleness > 0;
    if (whole_pass && !ahead && !consumed && !dropped) {
      return absl::StrCat("group ", order, " is neither consumed nor dropped");
    }
  }
  for (uint64_t epoch = 0; epoch < one.job.cursor_epoch; ++epoch) {
    for (uint64_t prompt = 0; prompt < kTrainPrompts; ++prompt) {
      if (seen.count({epoch, prompt}) == 0) {
        return absl::StrCat("prompt ", prompt, " of pass ", epoch, " is missing");
      }
    }
  }
  for (uint64_t update = 1; update <= kUpdates; ++update) {
    if (by_update[update] != kGroups) {
      return absl::StrCat("update ", update, " consumed ", by_update[update], " groups");
    }
  }
  if (ledger.Summary().duplicates() > 0) return "a group was consumed twice";
  return "";
}

}  // namespace rein::simulation
