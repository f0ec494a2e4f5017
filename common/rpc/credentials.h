// Credentials says how servers and channels are secured: the one place where that is decided.

#pragma once

#include <memory>
#include <utility>

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

namespace rein::rpc {

class Credentials {
 public:
  // No encryption and no authentication.
  static Credentials Plaintext() {
    return Credentials(grpc::InsecureServerCredentials(), grpc::InsecureChannelCredentials());
  }

  const std::shared_ptr<grpc::ServerCredentials>& server() const { return server_; }
  const std::shared_ptr<grpc::ChannelCredentials>& channel() const { return channel_; }

 private:
  Credentials(std::shared_ptr<grpc::ServerCredentials> server,
              std::shared_ptr<grpc::ChannelCredentials> channel)
      : server_(std::move(server)), channel_(std::move(channel)) {}

  std::shared_ptr<grpc::ServerCredentials> server_;
  std::shared_ptr<grpc::ChannelCredentials> channel_;
};

}  // namespace rein::rpc
