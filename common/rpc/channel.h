// Connect makes every channel of the product: size limit, keepalive, reconnection and credentials.
//
//   auto stub = v1::RewardService::NewStub(rpc::Connect("127.0.0.1:7004"));
//   grpc::ClientContext context;
//   rpc::SetDeadline(context, absl::Seconds(10));  // every call has one
//
// Connecting is lazy and never fails here: calls on a channel without a peer end with UNAVAILABLE.

#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "common/rpc/credentials.h"

namespace rein::rpc {

// `address` is host:port.
std::shared_ptr<grpc::Channel> Connect(const std::string& address,
                                       const Credentials& credentials = Credentials::OfProcess());

void SetDeadline(grpc::ClientContext& context, absl::Duration after);

}  // namespace rein::rpc
