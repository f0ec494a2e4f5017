// RpcConnector connects to the addresses that actors registered, over gRPC.

#pragma once

#include "services/controller/actor_pool.h"

namespace rein::services {

class RpcConnector final : public ActorConnector {
 public:
  std::unique_ptr<Trainer> ConnectTrainer(const v1::Actor& actor) override;
  std::unique_ptr<Generator> ConnectGenerator(const v1::Actor& actor) override;
  std::unique_ptr<Reference> ConnectReference(const v1::Actor& actor) override;
  std::unique_ptr<Rewarder> ConnectRewarder(const v1::Actor& actor) override;
  std::unique_ptr<EnvironmentClient> ConnectEnvironment(const std::string& address) override;
};

}  // namespace rein::services
