#include "services/trainer/peer_client.h"

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "rein/v1/trainer.grpc.pb.h"

namespace rein::services {
namespace {

constexpr absl::Duration kLongest = absl::Hours(1);

using Stub = v1::TrainerService::Stub;

}  // namespace

absl::Status PeerCalls::Wait() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (size_t i = 0; i < statuses_->size(); ++i) {
    const absl::Status& status = (*statuses_)[i];
    if (status.ok()) continue;
    return absl::Status(status.code(), absl::StrCat("trainer rank ", i + 1, ": ", status.message()));
  }
  return absl::OkStatus();
}

template <typename Request, typename Reply, typename Method>
PeerCalls PeerRanks::Call(const Request& request, Method method) const {
  PeerCalls calls;
  calls.statuses_->resize(addresses_.size());
  for (size_t i = 0; i < addresses_.size(); ++i) {
    calls.threads_.emplace_back(
        [request, method, address = addresses_[i], statuses = calls.statuses_, i] {
          auto stub = v1::TrainerService::NewStub(rpc::Connect(address));
          grpc::ClientContext context;
          rpc::SetDeadline(context, kLongest);
          Reply reply;
          (*statuses)[i] = rpc::FromGrpc((stub.get()->*method)(&context, request, &reply));
        });
  }
  return calls;
}

PeerCalls PeerRanks::Start(const v1::LoadTrainerRequest& request) const {
  return Call<v1::LoadTrainerRequest, v1::LoadTrainerReply>(request, &Stub::Load);
}
PeerCalls PeerRanks::Start(const v1::UpdateRequest& request) const {
  return Call<v1::UpdateRequest, v1::UpdateReply>(request, &Stub::Update);
}
PeerCalls PeerRanks::Start(const v1::ForwardBackwardRequest& request) const {
  return Call<v1::ForwardBackwardRequest, v1::ForwardBackwardReply>(request, &Stub::ForwardBackward);
}
PeerCalls PeerRanks::Start(const v1::OptimStepRequest& request) const {
  return Call<v1::OptimStepRequest, v1::OptimStepReply>(request, &Stub::OptimStep);
}
PeerCalls PeerRanks::Start(const v1::SaveRequest& request) const {
  return Call<v1::SaveRequest, v1::SaveReply>(request, &Stub::Save);
}

}  // namespace rein::services
