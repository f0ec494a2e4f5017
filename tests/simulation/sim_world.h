// SimWorld plays one job from a seed: the real store, ledger, registry and run loop, with services,
// network and time of its own, and everything that can go wrong with them.

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
  std::string folder;
};

// One service process, through all its lives.
struct SimProcess {
  std::string role;
  std::string name;
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

  const SimTruth& truth() const { return truth_; }
  uint64_t final_digest() const { return job_.digest; }
  int controller_starts() const { return controller_starts_; }
  int crashes() const { return crashes_; }

  // For the links.
  absl::Time now() const { return clock_.Now(); }
  SimQueue& queue() { return queue_; }
  SimRandom& random() { return random_; }
  SimTruth& mutable_truth() { return truth_; }
  const SimOptions& options() const { return options_; }
  SimProcess& process(const std::string& name) { return *processes_.at(name); }
  // A message can be lost, and the controller can die while it sends one.
  bool Loses();
  absl::Duration Delay();
  bool controller_dying() const { return controller_dying_; }
  // A request for siblings leaves the controller: none of them may be stored.
  void CheckGenerate(const v1::GenerateRequest& request);
  void Wake() { wake_ = true; }

 private:
  v1::JobConfig MakeConfig() const;
  void StartController();
  void StopController();
  void StartProcess(SimProcess& process);
  void Beat(SimProcess& process, uint64_t life);
  void ScheduleFaults();
  void Fault();
  std::string Verdict();
  std::string CheckLedger(const services::Ledger& ledger) const;

  const SimOptions options_;
  sync::VirtualClock clock_;
  SimQueue queue_;
  SimRandom random_;
  SimTruth truth_;
  fakes::FakePrompts train_, held_out_;
  fakes::FakeRecorder recorder_;
  std::map<std::string, std::unique_ptr<SimProcess>> processes_;
  std::unique_ptr<services::ActorConnector> connector_;

  services::JobRecord job_;
  std::unique_ptr<services::Store> store_;
  std::unique_ptr<services::ActorRegistry> registry_;
  std::unique_ptr<services::RunLoop> run_;
  bool wake_ = true;
  bool controller_dying_ = false;
  int controller_starts_ = 0;
  int crashes_ = 0;
  absl::Time faults_end_;
};

// Connections into the simulated services.
std::unique_ptr<services::ActorConnector> MakeSimConnector(SimWorld& world);

}  // namespace rein::simulation
