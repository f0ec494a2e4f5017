// ActorPool holds the connections of one job to the actors that it may use now.
//
// Refresh() follows the registry: an actor that is lost, or came back with another epoch, leaves
// the pool with its connection, which ends every call that was under way there. Not thread-safe.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "rein/v1/controller.pb.h"
#include "services/controller/decision.h"
#include "services/environment/environment_client.h"
#include "services/reference/reference_client.h"
#include "services/reward/reward_client.h"
#include "services/rollout/rollout_client.h"
#include "services/trainer/trainer_client.h"

namespace rein::services {

// Makes connections; the simulation has its own.
class ActorConnector {
 public:
  virtual ~ActorConnector() = default;
  virtual std::unique_ptr<Trainer> ConnectTrainer(const v1::Actor& actor) = 0;
  virtual std::unique_ptr<Generator> ConnectGenerator(const v1::Actor& actor) = 0;
  virtual std::unique_ptr<Reference> ConnectReference(const v1::Actor& actor) = 0;
  virtual std::unique_ptr<Rewarder> ConnectRewarder(const v1::Actor& actor) = 0;
  // `address` is host:port: of a reward service for the tools, or of a user's environment.
  virtual std::unique_ptr<EnvironmentClient> ConnectEnvironment(const std::string& address) = 0;
};

struct PooledActor {
  v1::Actor actor;
  ActorView view;
  int failures = 0;  // in a row
  // One of them, by role.
  std::unique_ptr<Trainer> trainer;
  std::unique_ptr<Generator> generator;
  std::unique_ptr<Reference> reference;
  std::unique_ptr<Rewarder> rewarder;
};

class ActorPool {
 public:
  // `connector` must outlive the pool.
  ActorPool(ActorConnector& connector, const v1::PlacementConfig& placement)
      : connector_(connector), placement_(placement) {}

  // Returns the names of actors that left.
  std::vector<std::string> Refresh(const std::vector<v1::Actor>& registered);

  // Null when it is not in the pool.
  PooledActor* Find(const std::string& name);
  // The trainer in use; null when there is none.
  PooledActor* trainer();
  // Of one role, by name.
  std::vector<ActorView> Views(const std::string& role) const;
  // Bytes of a generator's GPU that other roles will still take: a trainer there `coming`, references there their weights
  // (of so many parameters; 0: the job has none) and what a forward pass takes. Keys and values leave them free.
  uint64_t ReservedBeside(const v1::Actor& generator, uint64_t coming, uint64_t reference_parameters) const;
  // Names an actor that computes with the model by another build than the trainer's; empty: there is
  // none.
  std::string BuildDifference() const;

 private:
  bool Wanted(const v1::Actor& actor) const;
  PooledActor Connect(const v1::Actor& actor);

  ActorConnector& connector_;
  const v1::PlacementConfig placement_;
  std::map<std::string, PooledActor> actors_;
};

}  // namespace rein::services
