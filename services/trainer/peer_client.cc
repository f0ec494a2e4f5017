#include "services/trainer/peer_client.h"

#include <deque>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "rein/v1/trainer.grpc.pb.h"

namespace rein::services {
namespace {

constexpr absl::Duration kLongest = absl::Hours(1);

using Stub = v1::TrainerService::Stub;

}  // namespace

struct PeerCalls::State {
  std::mutex mutex;
  std::vector<absl::Status> statuses;  // of the calls that were answered; else OK
  std::deque<grpc::ClientContext> contexts;
};

PeerCalls::PeerCalls() : state_(std::make_shared<State>()) {}

absl::Status PeerCalls::FirstError() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  for (size_t i = 0; i < state_->statuses.size(); ++i) {
    const absl::Status& status = state_->statuses[i];
    if (status.ok()) continue;
    return absl::Status(status.code(),
                        absl::StrCat("trainer rank ", i + 1, ": ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status PeerCalls::Wait() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return state_ == nullptr ? absl::OkStatus() : FirstError();
}

void PeerCalls::Cancel() {
  for (grpc::ClientContext& context : state_->contexts) context.TryCancel();
}

template <typename Reply, typename Request, typename Method>
PeerCalls PeerRanks::Call(const std::vector<Request>& requests, Method method) const {
  PeerCalls calls;
  calls.state_->statuses.resize(addresses_.size());
  calls.state_->contexts.resize(addresses_.size());
  for (size_t i = 0; i < addresses_.size(); ++i) {
    grpc::ClientContext& context = calls.state_->contexts[i];
    rpc::SetDeadline(context, kLongest);
    calls.threads_.emplace_back([request = requests[i], method, address = addresses_[i], &context,
                                 state = calls.state_, i] {
      auto stub = v1::TrainerService::NewStub(rpc::Connect(address));
      Reply reply;
      absl::Status status = rpc::FromGrpc((stub.get()->*method)(&context, request, &reply));
      std::lock_guard<std::mutex> lock(state->mutex);
      state->statuses[i] = status;
    });
  }
  return calls;
}

template <typename Reply, typename Request, typename Method>
PeerCalls PeerRanks::CallAll(const Request& request, Method method) const {
  return Call<Reply>(std::vector<Request>(addresses_.size(), request), method);
}

PeerCalls PeerRanks::Start(const v1::LoadTrainerRequest& request,
                           const std::string& rendezvous) const {
  std::vector<v1::LoadTrainerRequest> requests(addresses_.size(), request);
  for (size_t i = 0; i < requests.size(); ++i) {
    // Each attempt meets anew: an answer that was kept from an earlier one would not do.
    requests[i].mutable_fence()->set_request_id(
        absl::StrCat(request.fence().request_id(), "@", rendezvous));
    v1::TrainerRank& rank = *requests[i].mutable_rank();
    rank.set_rank(static_cast<uint32_t>(i) + 1);
    rank.set_size(static_cast<uint32_t>(size()));
    rank.set_rendezvous(rendezvous);
  }
  return Call<v1::LoadTrainerReply>(requests, &Stub::Load);
}
PeerCalls PeerRanks::Start(const v1::UpdateRequest& request) const {
  return CallAll<v1::UpdateReply>(request, &Stub::Update);
}
PeerCalls PeerRanks::Start(const v1::ForwardBackwardRequest& request) const {
  return CallAll<v1::ForwardBackwardReply>(request, &Stub::ForwardBackward);
}
PeerCalls PeerRanks::Start(const v1::OptimStepRequest& request) const {
  return CallAll<v1::OptimStepReply>(request, &Stub::OptimStep);
}
PeerCalls PeerRanks::Start(const v1::SaveRequest& request) const {
  return CallAll<v1::SaveReply>(request, &Stub::Save);
}

}  // namespace rein::services
