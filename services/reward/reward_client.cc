#include "services/reward/reward_client.h"

#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/retrying_call.h"
#include "rein/v1/reward.grpc.pb.h"

namespace rein::services {
namespace {

using Async = v1::RewardService::StubInterface::async_interface;

class RewardClient final : public Rewarder {
 public:
  explicit RewardClient(const std::string& address)
      : stub_(v1::RewardService::NewStub(rpc::Connect(address))) {}

  void Score(const v1::ScoreRewardsRequest& request, absl::Duration deadline,
             rpc::Done<v1::ScoreRewardsReply> done) override {
    Async* async = stub_->async();
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailableOrExhausted, async, &Async::Score,
                           request, deadline, std::move(done));
  }

 private:
  std::unique_ptr<v1::RewardService::Stub> stub_;
  rpc::CallGroup calls_;  // destroyed first: it waits for the calls that use the stub
};

}  // namespace

std::unique_ptr<Rewarder> ConnectRewarder(const std::string& address) {
  return std::make_unique<RewardClient>(address);
}

}  // namespace rein::services
