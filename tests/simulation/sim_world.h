// SimWorld plays jobs from a seed, one on each group of actors and all under one controller: the real store, ledger,
// registry and run loops, with services, network and time of its own, and everything that can go wrong with them.

#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/sync/clock.h"
#include "services/controller/actor_registry.h"
#include "services/controller/run_loop.h"
#include "services/controller/store.h"
#include "tests/fakes/fake_prompts.h"
#include "tests/simulation/sim_queue.h"
#include "tests/simulation/sim_services.h"

namespace rein::simulation {

struct SimOptions {
  uint64_t seed = 1;
  bool faults = true;
  uint32_t staleness = 0;
  v1::StalePolicy when_stale = v1::STALE_POLICY_WAIT;
  bool drains = false;  // generators end what they write before they take weights
  bool reference = false;
  bool texts = false;  // SFT instead of GRPO
  bool episodes = false;  // completions of several turns, with an environment
  int groups = 1;         // of actors, each with a job of its own
  std::string folder;
};

// One service process, through all its lives.
struct SimProcess {
  std::string role;
  std::string name;
  std::string group;
  uint64_t life = 0;  // grows at each start: what was sent to an earlier life is lost
  bool alive = false;
  absl::Time frozen_until = absl::InfinitePast();
  std::unique_ptr<rpc::FenceGuard> guard;
  std::unique_ptr<SimTrainerService> trainer;
  std::unique_ptr<SimModelService> model;
  std::map<std::string, v1::EnvironmentResetRequest> episodes;  // of an environment
};

class SimWorld {
 public:
  explicit SimWorld(SimOptions options);
  ~SimWorld();

  // Plays until the job ends; empty when all was well, else what went wrong.
  std::string Play();

  // Of the job of one group.
  const SimTruth& truth(int group = 0) const { return jobs_[static_cast<size_t>(group)]->truth; }
  uint64_t final_digest(int group = 0) const { return jobs_[static_cast<size_t>(group)]->job.digest; }
  int controller_starts() const { return controller_starts_; }
  int crashes() const { return crashes_; }

  // For the links.
  absl::Time now() const { return clock_.Now(); }
  SimQueue& queue() { return queue_; }
  SimRandom& random() { return random_; }
  SimTruth& truth_of(const std::string& group);
  const SimOptions& options() const { return options_; }
  SimProcess& process(const std::string& name) { return *processes_.at(name); }
  // A message can be lost, and the controller can die while it sends one.
  bool Loses();
  absl::Duration Delay();
  bool controller_dying() const { return controller_dying_; }
  // A request for siblings leaves the controller for an actor of `group`: none of them may be stored, and the job is
  // the group's.
  void CheckGenerate(const std::string& group, const v1::GenerateRequest& request);
  void Wake() { wake_ = true; }

 private:
  struct SimJob {
    std::string group;
    SimTruth truth;
    fakes::FakePrompts train, held_out;
    fakes::FakeRecorder recorder;
    services::JobRecord job;
    std::unique_ptr<services::RunLoop> run;  // null while there is no controller, and once the job has ended
    absl::Time until = absl::InfinitePast();
    bool ended = false;
  };

  v1::JobConfig MakeConfig(const SimJob& job) const;
  void Violated(const std::string& what) { jobs_.front()->truth.violations.push_back(what); }
  // The first violation of any job.
  std::string Violation() const;
  void AddProcesses(const std::string& group);
  absl::Status StartJob(SimJob& job, const std::vector<services::JobRecord>& stored);
  // Steps what can be; a verdict when all jobs have ended or one has ended wrongly.
  std::optional<std::string> StepJobs(bool all);
  void StartController();
  void StopController();
  void StartProcess(SimProcess& process);
  void Beat(SimProcess& process, uint64_t life);
  void ScheduleFaults();
  void Fault();
  std::string Verdict(SimJob& job);
  std::string CheckLedger(const SimJob& job, const services::Ledger& ledger) const;

  const SimOptions options_;
  sync::VirtualClock clock_;
  SimQueue queue_;
  SimRandom random_;
  std::vector<std::unique_ptr<SimJob>> jobs_;
  std::map<std::string, std::unique_ptr<SimProcess>> processes_;
  std::unique_ptr<services::ActorConnector> connector_;

  std::unique_ptr<services::Store> store_;
  std::unique_ptr<services::ActorRegistry> registry_;  // null while there is no controller
  bool wake_ = true;
  bool controller_dying_ = false;
  int controller_starts_ = 0;
  int crashes_ = 0;
  absl::Time faults_end_;
};

// Connections into the simulated services.
std::unique_ptr<services::ActorConnector> MakeSimConnector(SimWorld& world);

}  // namespace rein::simulation
