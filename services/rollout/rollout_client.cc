#include "services/rollout/rollout_client.h"

#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/retrying_call.h"
#include "rein/v1/rollout.grpc.pb.h"

namespace rein::services {
namespace {

using Async = v1::RolloutService::StubInterface::async_interface;

// One Generate stream; deletes itself when it is over.
class GenerateStream final : public grpc::ClientReadReactor<v1::GenerateReply> {
 public:
  GenerateStream(rpc::CallGroup& calls, const v1::GenerateRequest& request,
                 std::function<void(v1::Rollout)> on_rollout,
                 std::function<void(absl::Status)> done)
      : calls_(calls),
        request_(request),
        on_rollout_(std::move(on_rollout)),
        done_(std::move(done)) {}

  void Start(Async* async, absl::Duration deadline) {
    rpc::SetDeadline(context_, deadline);
    id_ = calls_.Enter([this] { context_.TryCancel(); });
    async->Generate(&context_, &request_, this);
    StartRead(&reply_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    on_rollout_(std::move(*reply_.mutable_rollout()));
    StartRead(&reply_);
  }

  void OnDone(const grpc::Status& status) override {
    done_(rpc::FromGrpc(status));
    on_rollout_ = nullptr;
    done_ = nullptr;
    calls_.Leave(id_);
    delete this;
  }

 private:
  rpc::CallGroup& calls_;
  const v1::GenerateRequest request_;
  std::function<void(v1::Rollout)> on_rollout_;
  std::function<void(absl::Status)> done_;
  grpc::ClientContext context_;
  v1::GenerateReply reply_;
  uint64_t id_ = 0;
};

class RolloutClient final : public Generator {
 public:
  explicit RolloutClient(const std::string& address)
      : stub_(v1::RolloutService::NewStub(rpc::Connect(address))) {}

  void Load(const v1::LoadModelRequest& request, absl::Duration deadline,
            rpc::Done<v1::LoadModelReply> done) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailable, async(), &Async::Load, request,
                           deadline, std::move(done));
  }

  void Generate(const v1::GenerateRequest& request, absl::Duration deadline,
                std::function<void(v1::Rollout)> on_rollout,
                std::function<void(absl::Status)> done) override {
    auto* stream = new GenerateStream(calls_, request, std::move(on_rollout), std::move(done));
    stream->Start(async(), deadline);
  }

  void Abort(const v1::AbortGenerateRequest& request, absl::Duration deadline,
             rpc::Done<v1::AbortGenerateReply> done) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailable, async(), &Async::Abort, request,
                           deadline, std::move(done));
  }

  void Status(absl::Duration deadline, rpc::Done<v1::ActorStatusReply> done) override {
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailable, async(), &Async::Status,
                           v1::ActorStatusRequest(), deadline, std::move(done));
  }

 private:
  Async* async() { return stub_->async(); }

  std::unique_ptr<v1::RolloutService::Stub> stub_;
  rpc::CallGroup calls_;  // destroyed first: it waits for the calls that use the stub
};

}  // namespace

std::unique_ptr<Generator> ConnectGenerator(const std::string& address) {
  return std::make_unique<RolloutClient>(address);
}

}  // namespace rein::services
