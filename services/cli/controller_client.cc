#include "services/cli/controller_client.h"

#include <algorithm>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "common/rpc/address_list.h"
#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "rein/v1/controller.grpc.pb.h"
#include "services/cli/tls_probe.h"

namespace rein::cli {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(30);
constexpr absl::Duration kTraceDeadline = absl::Minutes(3);   // actors may be busy
constexpr absl::Duration kLeaderPatience = absl::Seconds(20);   // for one of several to lead: two leases
constexpr absl::Duration kBalancerPatience = absl::Seconds(5);  // for a balancer to give the one that leads
constexpr absl::Duration kProbeDeadline = absl::Seconds(2);
constexpr absl::Duration kProbePause = absl::Milliseconds(200);
constexpr absl::Duration kSubmitDeadline = absl::Minutes(5);  // the data is read and checked

}  // namespace

class ControllerClient::Stub {
 public:
  using Rpc = v1::ControllerService::Stub;

  Stub(const std::string& server, const std::string& token, const std::string& authority)
      : addresses_(server), token_(token), authority_(authority), leads_(!addresses_.several()) {
    Connect();
  }

  template <typename Request, typename Reply>
  absl::StatusOr<Reply> Call(grpc::Status (Rpc::*method)(grpc::ClientContext*, const Request&,
                                                         Reply*),
                             const Request& request, absl::Duration deadline = kDeadline) {
    const absl::Time until = absl::Now() + std::min(Patience(), deadline);
    while (true) {
      FindLeader(until);
      grpc::ClientContext context;
      Prepare(context, deadline);
      Reply reply;
      grpc::Status status = (rpc_.get()->*method)(&context, request, &reply);
      if (status.ok()) return reply;
      leads_ = !addresses_.MayBeElsewhere(rpc::FromGrpc(status));
      if (leads_ || status.error_code() != grpc::StatusCode::UNAVAILABLE || absl::Now() > until) return Named(status);
    }
  }

  template <typename Request, typename Item>
  absl::Status Stream(std::unique_ptr<grpc::ClientReader<Item>> (Rpc::*method)(grpc::ClientContext*,
                                                                               const Request&),
                      const Request& request, absl::Duration deadline,
                      const std::function<bool(const Item&)>& on_item) {
    FindLeader(absl::Now() + Patience());
    grpc::ClientContext context;
    Prepare(context, deadline);
    auto reader = (rpc_.get()->*method)(&context, request);
    Item item;
    bool wanted = true;
    while (wanted && reader->Read(&item)) wanted = on_item(item);
    if (!wanted) context.TryCancel();
    grpc::Status status = reader->Finish();
    leads_ = !addresses_.MayBeElsewhere(rpc::FromGrpc(status));
    return wanted && !status.ok() ? Named(status) : absl::OkStatus();
  }

 private:
  void Connect() { rpc_ = std::make_unique<Rpc>(rpc::Connect(addresses_.current())); }

  absl::Duration Patience() const { return addresses_.several() ? kLeaderPatience : kBalancerPatience; }

  // Connects to the one that leads; the call that follows says what is wrong when none does in time.
  void FindLeader(absl::Time until) {
    while (!leads_) {
      grpc::ClientContext context;
      Prepare(context, kProbeDeadline);
      v1::GetServerReply reply;
      const grpc::StatusCode code = rpc_->GetServer(&context, v1::GetServerRequest(), &reply).error_code();
      leads_ = code != grpc::StatusCode::UNAVAILABLE && code != grpc::StatusCode::DEADLINE_EXCEEDED;
      if (leads_ || absl::Now() > until) return;
      if (addresses_.Next()) absl::SleepFor(kProbePause);
      Connect();
    }
  }

  void Prepare(grpc::ClientContext& context, absl::Duration deadline) const {
    rpc::SetDeadline(context, deadline);
    if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
  }

  absl::Status Named(const grpc::Status& status) const {
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
      return absl::UnimplementedError(absl::StrCat(
          "the controller at ", addresses_.current(), " does not know this yet: it is older than this rein (rein version)"));
    }
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return rpc::FromGrpc(status);
    const bool untrusted = absl::StrContains(status.error_message(), "certificate verify failed") ||
                           absl::StrContains(status.error_message(), "Hostname Verification Check failed");
    if (!authority_.empty() && untrusted) {
      const std::string why = WhyNotTrusted(addresses_.current(), authority_);
      if (!why.empty()) return absl::UnavailableError(why);
    }
    return absl::UnavailableError(absl::StrCat("no answer from the controller at ", addresses_.current(), " (",
                                               status.error_message(), ")"));
  }

  rpc::AddressList addresses_;
  const std::string token_;
  const std::string authority_;
  std::unique_ptr<Rpc> rpc_;
  bool leads_;  // the one that is connected to, as far as is known
};

ControllerClient::ControllerClient(const std::string& server, const std::string& token, const std::string& authority)
    : stub_(std::make_unique<Stub>(server, token, authority)) {}
ControllerClient::~ControllerClient() = default;

absl::StatusOr<v1::SubmitReply> ControllerClient::Submit(const v1::SubmitRequest& request) {
  return stub_->Call(&Stub::Rpc::Submit, request, kSubmitDeadline);
}

absl::StatusOr<v1::Job> ControllerClient::GetJob(const std::string& name) {
  v1::GetJobRequest request;
  request.set_name(name);
  return stub_->Call(&Stub::Rpc::GetJob, request);
}

absl::StatusOr<v1::ListJobsReply> ControllerClient::ListJobs() {
  return stub_->Call(&Stub::Rpc::ListJobs, v1::ListJobsRequest());
}

absl::StatusOr<v1::ListActorsReply> ControllerClient::ListActors(absl::Duration deadline) {
  return stub_->Call(&Stub::Rpc::ListActors, v1::ListActorsRequest(), deadline);
}

absl::StatusOr<v1::LedgerSummary> ControllerClient::GetLedger(const std::string& name) {
  v1::GetLedgerRequest request;
  request.set_name(name);
  return stub_->Call(&Stub::Rpc::GetLedger, request);
}

absl::StatusOr<v1::ListRolloutsReply> ControllerClient::ListRollouts(
    const v1::ListRolloutsRequest& request) {
  return stub_->Call(&Stub::Rpc::ListRollouts, request);
}

absl::StatusOr<v1::TraceRolloutReply> ControllerClient::TraceRollout(const v1::TraceRolloutRequest& request) {
  return stub_->Call(&Stub::Rpc::TraceRollout, request, kTraceDeadline);
}

absl::StatusOr<v1::Job> ControllerClient::Cancel(const std::string& name) {
  v1::JobCommand command;
  command.set_request_id(RandomRequestId());
  command.set_name(name);
  return stub_->Call(&Stub::Rpc::Cancel, command);
}

absl::StatusOr<v1::Job> ControllerClient::Pause(const std::string& name) {
  v1::JobCommand command;
  command.set_request_id(RandomRequestId());
  command.set_name(name);
  return stub_->Call(&Stub::Rpc::Pause, command);
}

absl::StatusOr<v1::DeleteJobReply> ControllerClient::Delete(const std::string& name) {
  v1::JobCommand command;
  command.set_request_id(RandomRequestId());
  command.set_name(name);
  return stub_->Call(&Stub::Rpc::Delete, command);
}

absl::StatusOr<v1::Job> ControllerClient::DeleteCheckpoint(const std::string& name, uint32_t number) {
  v1::DeleteCheckpointRequest request;
  request.set_request_id(RandomRequestId());
  request.set_name(name);
  request.set_number(number);
  return stub_->Call(&Stub::Rpc::DeleteCheckpoint, request);
}

absl::StatusOr<v1::ApplyRetentionReply> ControllerClient::ApplyRetention(bool dry_run) {
  v1::ApplyRetentionRequest request;
  request.set_request_id(RandomRequestId());
  request.set_dry_run(dry_run);
  return stub_->Call(&Stub::Rpc::ApplyRetention, request);
}

absl::StatusOr<v1::ListUpdatesReply> ControllerClient::ListUpdates(
    const v1::ListUpdatesRequest& request) {
  return stub_->Call(&Stub::Rpc::ListUpdates, request);
}

absl::StatusOr<v1::Job> ControllerClient::Resume(const v1::ResumeJobRequest& request) {
  return stub_->Call(&Stub::Rpc::Resume, request);
}

absl::StatusOr<v1::GetServerReply> ControllerClient::GetServer(absl::Duration deadline) {
  return stub_->Call(&Stub::Rpc::GetServer, v1::GetServerRequest(), deadline);
}

absl::Status ControllerClient::Watch(const v1::WatchRequest& request, absl::Duration deadline,
                                     const std::function<bool(const v1::JobEvent&)>& on_event) {
  return stub_->Stream(&Stub::Rpc::Watch, request, deadline, on_event);
}

absl::Status ControllerClient::Logs(const v1::LogsRequest& request, absl::Duration deadline,
                                    const std::function<bool(const v1::LogLine&)>& on_line) {
  return stub_->Stream(&Stub::Rpc::Logs, request, deadline, on_line);
}

std::string RandomRequestId() {
  std::random_device device;
  return absl::StrCat("cli-", absl::Hex(device(), absl::kZeroPad8),
                      absl::Hex(device(), absl::kZeroPad8));
}

}  // namespace rein::cli
