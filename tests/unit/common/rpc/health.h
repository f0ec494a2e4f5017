// Asks a server's grpc.health.v1 how it is, as load balancers do.

#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "common/rpc/channel.h"

namespace rein::rpc {

constexpr int kServing = 1, kNotServing = 2;

// The status of the whole server, without the proto: field 1 of the answer; -1: there was none.
inline int AskHealth(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  SetDeadline(context, absl::Seconds(10));
  grpc::CompletionQueue queue;
  grpc::ByteBuffer reply;
  const grpc::Slice nothing("");
  const grpc::ByteBuffer empty(&nothing, 1);
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", empty, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&reply, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + std::chrono::seconds(10));
  std::vector<grpc::Slice> slices;
  if (!status.ok() || !reply.Dump(&slices).ok() || slices.empty()) return -1;
  return slices[0].size() == 2 ? slices[0].begin()[1] : -1;
}

}  // namespace rein::rpc
