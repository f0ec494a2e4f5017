#include "tests/simulation/sim_world.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

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
      train_(kTrainPrompts),
      held_out_(kHeldOutPrompts),
      connector_(MakeSimConnector(*this)) {
  fs::remove_all(options_.folder);
  for (const auto& [role, count] : {std::pair<std::string, int>{"trainer", 1},
                                    {"rollout", 2},
                                    {"reference", options_.reference ? 1 : 0},
                                    {"reward", 2},
                                    {"environment", options_.episodes ? 1 : 0}}) {
    for (int i = 0; i < count; ++i) {
      auto process = std::make_unique<SimProcess>();
      process->role = role;
      process->name = absl::StrCat(role, "-", i);
      processes_[process->name] = std::move(process);
    }
  }
}

SimWorld::~SimWorld() {
  StopController();
  fs::remove_all(options_.folder);
}

v1::JobConfig SimWorld::MakeConfig() const {
  v1::JobConfig config;
  config.set_name("simulated");
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
  environment.mutable_remote()->set_address("environment-0");
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
  if (run_ == nullptr) return false;
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

void SimWorld::CheckGenerate(const v1::GenerateRequest& request) {
  if (request.group().attempt() > 0 || run_ == nullptr) return;  // held out
  for (const auto& [order, group] : run_->ledger().groups()) {
    if (group.id.SerializeAsString() != request.group().SerializeAsString()) continue;
    for (uint32_t sibling : request.siblings()) {
      if (group.siblings[sibling].stored) {
        truth_.violations.push_back(absl::StrCat("group ", order, " sibling ", sibling,
                                                 " is generated again though it is stored"));
      }
    }
  }
}

void SimWorld::StartController() {
  controller_dying_ = false;
  auto store = services::Store::Open({.folder = options_.folder, .durable = false});
  if (!store.ok()) return truth_.violations.push_back(store.status().ToString());
  store_ = *std::move(store);
  auto registry = services::ActorRegistry::Open(*store_, clock_, kLease);
  auto jobs = store_->ReadJobs();
  if (!registry.ok() || !jobs.ok()) return truth_.violations.push_back("the store does not open");
  registry_ = *std::move(registry);
  if (jobs->empty()) {
    job_.name = "simulated";
    job_.config = MakeConfig();
    job_.output = "/simulated";
    if (!store_->InsertJob(job_).ok() || !store_->Commit().ok()) {
      return truth_.violations.push_back("the job cannot be stored");
    }
  } else {
    job_ = jobs->front();
  }
  auto run = services::RunLoop::Begin({.store = *store_,
                                       .registry = *registry_,
                                       .connector = *connector_,
                                       .clock = clock_,
                                       .recorder = recorder_,
                                       .train = &train_,
                                       .held_out = {{"eval", &held_out_}},
                                       .wake = [this] { wake_ = true; }},
                                      job_);
  if (!run.ok()) return truth_.violations.push_back(run.status().ToString());
  run_ = *std::move(run);
  ++controller_starts_;
  wake_ = true;
}

void SimWorld::StopController() {
  run_.reset();
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
  if (process.role == "trainer") process.trainer = std::make_unique<SimTrainerService>(truth_);
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
    controller_dying_ = run_ != nullptr;
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
  absl::Time until = clock_.Now();
  while (truth_.violations.empty()) {
    if (run_ != nullptr && (wake_ || clock_.Now() >= until)) {
      wake_ = false;
      until = run_->Step();
      if (run_->outcome().has_value() && !controller_dying_) return Verdict();
    }
    if (controller_dying_) {
      ++crashes_;
      StopController();
      controller_dying_ = false;
      queue_.After(random_.Between(absl::Milliseconds(100), absl::Seconds(15)),
                   [this] { StartController(); });
    }
    if (clock_.Now() > give_up) {
      return absl::StrCat("wedged at update ", job_.updates_done, ": ",
                          run_ == nullptr ? "no controller" : run_->waits_for());
    }
    absl::Time step_at = run_ == nullptr ? absl::InfiniteFuture() : until;
    if (step_at < queue_.Next()) {
      clock_.AdvanceTo(step_at);
    } else {
      queue_.PlayOne();
    }
  }
  return truth_.violations.front();
}

std::string SimWorld::Verdict() {
  const services::Outcome& outcome = *run_->outcome();
  if (outcome.state != v1::JOB_STATE_SUCCEEDED) return absl::StrCat("failed: ", outcome.message);
  if (!truth_.violations.empty()) return truth_.violations.front();
  if (job_.updates_done != kUpdates) return absl::StrCat("ended at update ", job_.updates_done);
  if (job_.cursor_epoch == 0) return "no whole pass over the data was made";
  if (recorder_.evals.size() < 3) return absl::StrCat(recorder_.evals.size(), " held-out results");
  auto reopened = services::Ledger::Open(*store_, job_.name);
  if (!reopened.ok()) return reopened.status().ToString();
  std::string in_memory = CheckLedger(run_->ledger());
  return in_memory.empty() ? CheckLedger(**reopened) : in_memory;
}

std::string SimWorld::CheckLedger(const services::Ledger& ledger) const {
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
    bool whole_pass = group.id.data_epoch() < job_.cursor_epoch;
    bool ahead = options_.staleness > 0;
    if (whole_pass && !ahead && !consumed && !dropped) {
      return absl::StrCat("group ", order, " is neither consumed nor dropped");
    }
  }
  for (uint64_t epoch = 0; epoch < job_.cursor_epoch; ++epoch) {
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
