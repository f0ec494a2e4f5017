// RoleProcess is what every service process has in common: flags, log, admin port, fence, lease and
// an orderly end. A role's main is then short:
//
//   int main(int argc, char** argv) {
//     return rein::services::RunRole(
//         {.role = "reward", .build = rein::version::ThisBuild()}, argc, argv,
//         [](rein::services::RoleProcess& process) -> absl::Status {
//           REIN_ASSIGN_OR_RETURN(auto scorer, reward::Scorer::Create(...));
//           RewardServiceImpl service(*scorer, process.metrics());
//           return process.Serve({&service}, [] { return ActorReport{}; });
//         });
//   }
//
// Flags of every role: --listen --admin --advertise --name --tls --tokens --log-file --log-mib --address-file --check --version;
// of all but the controller: --controller --group --device --threads.
// Without --controller the fence is open: the process serves whoever calls. Without --tls only this
// machine is listened to. --check reads flags and files as a start would, and leaves: 0, 2 or 3.
// Exit codes: 0 stopped by SIGTERM or SIGINT, 2 wrong flags, 3 wrong input, 7 a port is taken,
// 9 given up after an error that only a new process gets rid of, else 1.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/access/call_limit.h"
#include "common/access/user_tokens.h"
#include "common/config/name.h"
#include "common/http/http_server.h"
#include "common/rpc/access_gate.h"
#include "common/rpc/fence_guard.h"
#include "common/rpc/reply_cache.h"
#include "common/sync/clock.h"
#include "common/telemetry/log.h"
#include "common/telemetry/metrics.h"
#include "common/tls/tls_folder.h"
#include "services/role/lease_client.h"
#include "services/role/service_deps.h"

namespace CLI {
class App;
}  // namespace CLI

namespace grpc {
class Service;
}  // namespace grpc

namespace rein::services {

struct RoleFlags {
  std::string listen = "127.0.0.1:0";  // host:port of the gRPC server
  std::string admin = "127.0.0.1:0";   // host:port of /metrics, /healthz, /readyz
  std::string advertise;       // host that others reach this one at; default: that of listen
  std::string controller;      // host:port, several with commas; empty: none
  std::string group = config::kDefaultGroup;  // of actors that work on one job
  std::string name;            // default: the role, behind another group than the default one
  std::string device = "cpu";  // cpu, gpu:0, ...
  int threads = 0;             // of computing; 0: as many as there are cores
  uint32_t rank = 0;               // of a trainer of several; another than 0 is called by rank 0 alone
  std::vector<std::string> peers;  // rank 0: host:port of the others
  std::string log_file;        // default: standard error
  unsigned log_mib = 16;       // of the log file, and of each of the older ones that are kept
  std::string tls;             // folder with ca.crt, tls.crt, tls.key; empty: plaintext
  std::string tokens;          // file of user tokens; empty: none
  bool reflection = false;     // tells grpcurl and its like what is served
  std::string address_file;    // gets "GRPC_ADDRESS ADMIN_ADDRESS" once both listen
};

struct RoleSpec {
  std::string role;  // trainer, rollout, reference, reward, controller
  v1::BuildVersion build;
  // Adds a role's own flags; may be empty.
  std::function<void(CLI::App&)> add_flags = nullptr;
  // Called once the flags are read; INVALID_ARGUMENT refuses them. May change what follows from a role's
  // own flags; may be empty.
  std::function<absl::Status(RoleFlags&)> check_flags = nullptr;
};

class RoleProcess {
 public:
  // The files that the flags name; INVALID_ARGUMENT or NOT_FOUND.
  struct Files {
    std::optional<tls::TlsFolder> tls;
    std::unique_ptr<access::UserTokens> tokens;
  };
  static absl::StatusOr<Files> OpenFiles(const RoleFlags& flags, const sync::Clock& clock);

  // With TLS every server and channel of the process uses it from here on.
  RoleProcess(RoleSpec spec, RoleFlags flags, std::unique_ptr<telemetry::Log> log, Files files = {});
  ~RoleProcess();

  const RoleFlags& flags() const { return flags_; }
  const v1::BuildVersion& build() const { return spec_.build; }
  const sync::Clock& clock() const { return clock_; }
  telemetry::Log& log() { return *log_; }
  telemetry::Metrics& metrics() { return metrics_; }
  rpc::FenceGuard& fence() { return fence_; }
  rpc::ReplyCache& replies() { return replies_; }

  // Which GPU the role computes on, for the registration; before Serve(). Empty ones: none.
  void SetGpu(const std::string& name, const std::string& id, const std::string& cublas);

  // Who called a method that runs.
  access::Caller CallerOf(const grpc::ServerContext& context) const { return gate_->CallerOf(context); }
  // Options of one more HTTP server, secured as the admin port is.
  http::HttpOptions HttpOptionsFor(const std::string& address);

  // Adds routes to the admin port, and threads to answer them; before Serve().
  void AddRoutes(std::vector<http::Route> routes, int threads = 0);
  // Called before each scrape, to bring gauges up to date; before Serve().
  void OnScrape(std::function<void()> call) { on_scrape_ = std::move(call); }
  // Told of each call that was refused to its caller; before Serve().
  void OnRefused(rpc::AccessGate::OnRefused call);
  // Called with the addresses of the gRPC server and of the admin port once both listen (while it stands by, too),
  // before the registration; before Serve().
  void OnListening(std::function<void(const std::string& address, const std::string& admin)> call);

  // `own`, host:port that this process listens on, as others reach it.
  std::string Reached(const std::string& own) const;

  // Called before the server stops: long streams should end. Before Serve().
  void OnStopping(std::function<void()> call);

  // Listens without serving until `take` answers true, which is asked every fraction of a second: /readyz says no,
  // grpc.health.v1 NOT_SERVING, and `service` refuses every call with `refusal`. UNAVAILABLE of `take` is told and asked
  // again. Serve() then goes on at the same addresses; `service` must live until then. False: a stop signal came first.
  absl::StatusOr<bool> StandBy(const std::function<absl::StatusOr<bool>()>& take, grpc::Service& service,
                               const std::function<absl::Status()>& refusal);

  // Serves until SIGTERM, SIGINT, Stop() or GiveUp(); calls still running then have a grace of two seconds.
  // `on_new_epoch` as in LeaseOptions; kept replies are forgotten before it is called. The services
  // must outlive the call.
  absl::Status Serve(const std::vector<grpc::Service*>& services,
                     std::function<ActorReport()> report,
                     std::function<void(uint64_t)> on_new_epoch = nullptr);
  void Stop();

  // What services take by reference, and GiveUp().
  ServiceDeps deps();
  // Serve() ends with `status` once calls under way are answered; only the first counts. Any thread.
  void GiveUp(const absl::Status& status);
  // Ends the process here, as a crash would, with code 9: what it holds in memory must not be answered any more.
  [[noreturn]] void EndNow(const absl::Status& status);

 private:
  struct Waiting;

  absl::StatusOr<std::unique_ptr<Waiting>> Wait(grpc::Service& service, const std::function<absl::Status()>& refusal);
  absl::Status TellAddresses(const std::string& address, const std::string& admin);
  absl::StatusOr<std::unique_ptr<LeaseClient>> StartLease(
      const std::string& address, const std::string& admin, std::function<ActorReport()> report,
      std::function<void(uint64_t)> on_new_epoch);

  RoleSpec spec_;
  std::string device_id_;
  const RoleFlags flags_;
  sync::RealClock clock_;
  std::unique_ptr<telemetry::Log> log_;
  telemetry::Metrics metrics_;
  rpc::FenceGuard fence_{clock_};
  rpc::FenceGuard rank_lease_{clock_};  // of a rank that follows rank 0's fence
  rpc::ReplyCache replies_;
  const Files files_;
  access::CallLimit limit_{clock_};
  std::shared_ptr<rpc::AccessGate> gate_;
  rpc::AccessGate::OnRefused on_refused_;
  std::function<void()> on_scrape_;
  std::vector<http::Route> routes_;
  int http_threads_ = 4;
  std::atomic<bool> ready_ = false;
  std::string listen_, admin_;  // as the flags say, with the ports that were chosen while waiting
  std::unique_ptr<Waiting> waiting_;
  std::function<void(const std::string&, const std::string&)> on_listening_;
  std::function<void()> on_stopping_;
  std::mutex given_up_mutex_;
  absl::Status given_up_;
};

// Blocks the stop signals, reads the flags, makes the process and calls `body`. Returns the exit
// code.
int RunRole(RoleSpec spec, int argc, char** argv,
            const std::function<absl::Status(RoleProcess&)>& body);

}  // namespace rein::services
