// Reflection tells clients such as grpcurl what a server serves (grpc.reflection.v1): its services, and the descriptors of
// their messages. An option of one server: gRPC's own library of this would switch it on for every server of a program.
//
//   builder.SetOption(std::make_unique<Reflection>());

#pragma once

#include <memory>
#include <vector>

#include <grpcpp/impl/server_builder_option.h>

namespace rein::rpc {

class Reflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override;
};

}  // namespace rein::rpc
