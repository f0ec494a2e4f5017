#include "services/trainer/trainer_client.h"

#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/retrying_call.h"
#include "rein/v1/trainer.grpc.pb.h"

namespace rein::services {
namespace {

using Async = v1::TrainerService::StubInterface::async_interface;

class TrainerClient final : public Trainer {
 public:
  explicit TrainerClient(const std::string& address)
      : stub_(v1::TrainerService::NewStub(rpc::Connect(address))) {}

  void Load(const v1::LoadTrainerRequest& request, absl::Duration deadline,
            rpc::Done<v1::LoadTrainerReply> done) override {
    rpc::StartRetryingCall(calls_, kRetry, async(), &Async::Load, request, deadline,
                           std::move(done));
  }

  void Update(const v1::UpdateRequest& request, absl::Duration deadline,
              rpc::Done<v1::UpdateReply> done) override {
    rpc::StartRetryingCall(calls_, kRetry, async(), &Async::Update, request, deadline,
                           std::move(done));
  }

  void Publish(const v1::PublishRequest& request, absl::Duration deadline,
               rpc::Done<v1::PublishReply> done) override {
    // UNAVAILABLE may mean the receivers: then the same ones would be asked for ever.
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kNothing, async(), &Async::Publish, request,
                           deadline, std::move(done));
  }

  void Save(const v1::SaveRequest& request, absl::Duration deadline,
            rpc::Done<v1::SaveReply> done) override {
    rpc::StartRetryingCall(calls_, kRetry, async(), &Async::Save, request, deadline,
                           std::move(done));
  }

  void Score(const v1::ScorePolicyRequest& request, absl::Duration deadline,
             rpc::Done<v1::ScorePolicyReply> done) override {
    rpc::StartRetryingCall(calls_, kRetry, async(), &Async::Score, request, deadline,
                           std::move(done));
  }

  void Status(absl::Duration deadline, rpc::Done<v1::TrainerStatusReply> done) override {
    rpc::StartRetryingCall(calls_, kRetry, async(), &Async::Status, v1::TrainerStatusRequest(),
                           deadline, std::move(done));
  }

 private:
  // A full disk or too little memory does not pass by itself.
  static constexpr rpc::RetryOn kRetry = rpc::RetryOn::kUnavailable;

  Async* async() { return stub_->async(); }

  std::unique_ptr<v1::TrainerService::Stub> stub_;
  rpc::CallGroup calls_;  // destroyed first: it waits for the calls that use the stub
};

}  // namespace

std::unique_ptr<Trainer> ConnectTrainer(const std::string& address) {
  return std::make_unique<TrainerClient>(address);
}

}  // namespace rein::services
