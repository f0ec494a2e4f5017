#include "services/controller/rpc_connector.h"

namespace rein::services {

std::unique_ptr<Trainer> RpcConnector::ConnectTrainer(const v1::Actor& actor) {
  return services::ConnectTrainer(actor.address());
}

std::unique_ptr<Generator> RpcConnector::ConnectGenerator(const v1::Actor& actor) {
  return services::ConnectGenerator(actor.address());
}

std::unique_ptr<Reference> RpcConnector::ConnectReference(const v1::Actor& actor) {
  return services::ConnectReference(actor.address());
}

std::unique_ptr<Rewarder> RpcConnector::ConnectRewarder(const v1::Actor& actor) {
  return services::ConnectRewarder(actor.address());
}

std::unique_ptr<EnvironmentClient> RpcConnector::ConnectEnvironment(const std::string& address) {
  return services::ConnectEnvironment(address);
}

}  // namespace rein::services
