#include "services/environment/environment_client.h"

#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/retrying_call.h"
#include "rein/v1/environment.grpc.pb.h"

namespace rein::services {
namespace {

using Async = v1::EnvironmentService::StubInterface::async_interface;

class RpcEnvironment final : public EnvironmentClient {
 public:
  explicit RpcEnvironment(const std::string& address)
      : stub_(v1::EnvironmentService::NewStub(rpc::Connect(address))) {}

  void Reset(const v1::EnvironmentResetRequest& request, absl::Duration deadline,
             rpc::Done<v1::EnvironmentResetReply> done) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailable, async(), &Async::Reset, request, deadline,
                           std::move(done));
  }
  void Step(const v1::EnvironmentStepRequest& request, absl::Duration deadline,
            rpc::Done<v1::EnvironmentStepReply> done) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kNothing, async(), &Async::Step, request, deadline,
                           std::move(done));
  }
  void Close(const v1::EnvironmentCloseRequest& request, absl::Duration deadline) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kNothing, async(), &Async::Close, request, deadline,
                           rpc::Done<v1::EnvironmentCloseReply>([](auto) {}));
  }

 private:
  Async* async() { return stub_->async(); }

  std::unique_ptr<v1::EnvironmentService::Stub> stub_;
  rpc::CallGroup calls_;  // destroyed first: it waits for the calls that use the stub
};

}  // namespace

std::unique_ptr<EnvironmentClient> ConnectEnvironment(const std::string& address) {
  return std::make_unique<RpcEnvironment>(address);
}

}  // namespace rein::services
