#include "services/role/lease_client.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"

#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "rein/v1/controller.grpc.pb.h"

namespace rein::services {
namespace {

constexpr absl::Duration kCallDeadline = absl::Seconds(5);
constexpr absl::Duration kShortestDeadline = absl::Milliseconds(500);
constexpr absl::Duration kRetryPause = absl::Milliseconds(300);

std::string RandomText() {
  std::random_device device;
  return absl::StrCat(absl::Hex(device(), absl::kZeroPad8), absl::Hex(device(), absl::kZeroPad8));
}

}  // namespace

class LeaseClient::Connection {
 public:
  explicit Connection(const std::string& address)
      : stub_(v1::ControllerService::NewStub(rpc::Connect(address))) {}

  absl::StatusOr<v1::RegisterReply> Register(const v1::RegisterRequest& request, absl::Duration deadline) {
    grpc::ClientContext context;
    rpc::SetDeadline(context, deadline);
    v1::RegisterReply reply;
    grpc::Status status = stub_->Register(&context, request, &reply);
    if (!status.ok()) return rpc::FromGrpc(status);
    return reply;
  }

  absl::StatusOr<v1::HeartbeatReply> Heartbeat(const v1::HeartbeatRequest& request, absl::Duration deadline) {
    grpc::ClientContext context;
    rpc::SetDeadline(context, deadline);
    v1::HeartbeatReply reply;
    grpc::Status status = stub_->Heartbeat(&context, request, &reply);
    if (!status.ok()) return rpc::FromGrpc(status);
    return reply;
  }

 private:
  std::unique_ptr<v1::ControllerService::Stub> stub_;
};

std::unique_ptr<LeaseClient> LeaseClient::Start(LeaseOptions options, rpc::FenceGuard& guard,
                                                const sync::Clock& clock, telemetry::Log& log) {
  options.identity.set_incarnation(RandomText());
  auto client =
      std::unique_ptr<LeaseClient>(new LeaseClient(std::move(options), guard, clock, log));
  client->thread_ = std::thread([raw = client.get()] { raw->Run(); });
  return client;
}

LeaseClient::LeaseClient(LeaseOptions options, rpc::FenceGuard& guard, const sync::Clock& clock,
                         telemetry::Log& log)
    : options_(std::move(options)),
      guard_(guard),
      clock_(clock),
      log_(log),
      addresses_(options_.controller),
      connection_(std::make_unique<Connection>(addresses_.current())) {}

LeaseClient::~LeaseClient() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

bool LeaseClient::WaitUntilRegistered(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                           [this] { return registered_; });
}

absl::Duration LeaseClient::CallDeadline() const {
  // One of several that hangs must not use up the lease that another would renew.
  if (!addresses_.several() || lease_ == absl::ZeroDuration()) return kCallDeadline;
  return std::clamp(lease_ / 3, kShortestDeadline, kCallDeadline);
}

void LeaseClient::TryNext(const absl::Status& failure) {
  if (!addresses_.MayBeElsewhere(failure)) return;
  addresses_.Next();
  connection_ = std::make_unique<Connection>(addresses_.current());
}

void LeaseClient::Run() {
  bool registered = false;
  while (true) {
    absl::Duration pause = registered ? HeartbeatOnce() : RegisterOnce();
    std::unique_lock<std::mutex> lock(mutex_);
    registered = registered_;
    changed_.wait_for(lock, absl::ToChronoNanoseconds(pause), [this] { return stop_; });
    if (stop_) return;
  }
}

absl::Duration LeaseClient::RegisterOnce() {
  v1::RegisterRequest request = options_.identity;
  ActorReport report = options_.report();
  if (report.trainer.has_value()) *request.mutable_trainer() = *report.trainer;
  // The lease counts from before the call: this side must never think that it lasts longer than the
  // controller does.
  absl::Time sent = clock_.Now();
  absl::StatusOr<v1::RegisterReply> reply = connection_->Register(request, CallDeadline());
  if (!reply.ok()) {
    TryNext(reply.status());
    if (!unreachable_told_) {
      log_.Warn("cannot register with the controller, trying on",
                {{"controller", options_.controller}, {"error", reply.status().ToString()}});
      unreachable_told_ = true;
    }
    return kRetryPause;
  }
  unreachable_told_ = false;
  lease_ = std::max(absl::Seconds(reply->lease_seconds()), absl::Milliseconds(30));
  guard_.Enroll(reply->controller_epoch(), reply->actor_epoch(), sent + lease_);
  log_.Info("registered", {{"actor_epoch", absl::StrCat(reply->actor_epoch())},
                           {"controller_epoch", absl::StrCat(reply->controller_epoch())}});
  if (options_.on_new_epoch) options_.on_new_epoch(reply->actor_epoch());
  SetRegistered(true);
  return lease_ / 3;
}

absl::Duration LeaseClient::HeartbeatOnce() {
  ActorReport report = options_.report();
  v1::HeartbeatRequest request;
  request.set_name(options_.identity.name());
  request.set_actor_epoch(guard_.actor_epoch());
  *request.mutable_version() = report.version;
  request.set_load(report.load);
  absl::Time sent = clock_.Now();
  absl::StatusOr<v1::HeartbeatReply> reply = connection_->Heartbeat(request, CallDeadline());
  if (reply.ok()) {
    unreachable_told_ = false;
    guard_.ExtendLease(reply->controller_epoch(), sent + lease_);
    return lease_ / 3;
  }
  absl::StatusCode code = reply.status().code();
  if (code == absl::StatusCode::kFailedPrecondition || code == absl::StatusCode::kNotFound) {
    log_.Warn("the epoch is over, registering again", {{"error", reply.status().ToString()}});
    guard_.Expel();
    SetRegistered(false);
    return absl::ZeroDuration();
  }
  if (!unreachable_told_) {
    log_.Warn("heartbeat failed, trying on",
              {{"controller", addresses_.current()}, {"error", reply.status().ToString()}});
    unreachable_told_ = true;
  }
  TryNext(reply.status());
  return std::min(kRetryPause, lease_ / 3);
}

void LeaseClient::SetRegistered(bool registered) {
  std::lock_guard<std::mutex> lock(mutex_);
  registered_ = registered;
  changed_.notify_all();
}

}  // namespace rein::services
