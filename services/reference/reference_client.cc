#include "services/reference/reference_client.h"

#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/retrying_call.h"
#include "rein/v1/reference.grpc.pb.h"

namespace rein::services {
namespace {

using Async = v1::ReferenceService::StubInterface::async_interface;

class ReferenceClient final : public Reference {
 public:
  explicit ReferenceClient(const std::string& address)
      : stub_(v1::ReferenceService::NewStub(rpc::Connect(address))) {}

  void Load(const v1::LoadModelRequest& request, absl::Duration deadline,
            rpc::Done<v1::LoadModelReply> done) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailable, async(), &Async::Load, request,
                           deadline, std::move(done));
  }

  void Score(const v1::ScoreTokensRequest& request, absl::Duration deadline,
             rpc::Done<v1::ScoreTokensReply> done) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailableOrExhausted, async(), &Async::Score,
                           request, deadline, std::move(done));
  }

  void Status(absl::Duration deadline, rpc::Done<v1::ActorStatusReply> done) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailable, async(), &Async::Status,
                           v1::ActorStatusRequest(), deadline, std::move(done));
  }

 private:
  Async* async() { return stub_->async(); }

  std::unique_ptr<v1::ReferenceService::Stub> stub_;
  rpc::CallGroup calls_;  // destroyed first: it waits for the calls that use the stub
};

}  // namespace

std::unique_ptr<Reference> ConnectReference(const std::string& address) {
  return std::make_unique<ReferenceClient>(address);
}

}  // namespace rein::services
