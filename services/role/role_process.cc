#include "services/role/role_process.h"

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common/rpc/server.h"
#include "common/status/fatal.h"
#include "common/status/status_macros.h"
#include "common/version/build_version.h"

namespace rein::services {
namespace {

constexpr int kExitUsage = 2;
constexpr int kExitGivenUp = 9;

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

int ExitCode(const absl::Status& status) {
  if (IsFatal(status)) return kExitGivenUp;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
      return 3;
    case absl::StatusCode::kUnavailable:
      return 7;
    default:
      return 1;
  }
}

void AddCommonFlags(CLI::App& app, const RoleSpec& spec, RoleFlags& flags, bool& version) {
  app.add_option("--listen", flags.listen, "host:port of the gRPC server; port 0: any free one")
      ->capture_default_str();
  app.add_option("--admin", flags.admin, "host:port of /metrics, /healthz and /readyz")
      ->capture_default_str();
  app.add_option("--name", flags.name, "Name of this actor; default: " + spec.role);
  app.add_option("--log-file", flags.log_file, "Append the log here instead of standard error");
  app.add_option("--address-file", flags.address_file,
                 "Write the addresses of both ports here once they listen");
  app.add_flag("--version", version, "Print the version and leave");
  if (spec.role != "controller") {
    app.add_option("--controller", flags.controller,
                   "host:port of the controller; none: serve all");
    app.add_option("--advertise", flags.advertise,
                   "Host that the other services reach this one at; default: that of --listen");
    app.add_option("--device", flags.device, "cpu, gpu:0, ...")->capture_default_str();
    app.add_option("--threads", flags.threads, "Threads of computing; 0: one per core")
        ->check(CLI::NonNegativeNumber);
  }
  if (spec.add_flags) spec.add_flags(app);
}

}  // namespace

RoleProcess::RoleProcess(RoleSpec spec, RoleFlags flags, std::unique_ptr<telemetry::Log> log)
    : spec_(std::move(spec)), flags_(std::move(flags)), log_(std::move(log)) {
  metrics_
      .AddGauge("rein_build_info", "What this process was built from",
                {{"version", spec_.build.release()},
                 {"git_sha", spec_.build.git_hash()},
                 {"torch", spec_.build.torch()},
                 {"cuda", spec_.build.cuda()}})
      .Set(1);
}

RoleProcess::~RoleProcess() = default;

void RoleProcess::AddPage(const std::string& path, telemetry::MetricsEndpoint::Page page) {
  pages_[path] = std::move(page);
}

void RoleProcess::OnListening(std::function<void(const std::string&, const std::string&)> call) {
  on_listening_ = std::move(call);
}

void RoleProcess::OnStopping(std::function<void()> call) { on_stopping_ = std::move(call); }

absl::Status RoleProcess::Serve(const std::vector<grpc::Service*>& services,
                                std::function<ActorReport()> report,
                                std::function<void(uint64_t)> on_new_epoch) {
  REIN_ASSIGN_OR_RETURN(auto endpoint,
                        telemetry::MetricsEndpoint::Create(flags_.admin, metrics_, pages_));
  rpc::ServerOptions options{.address = flags_.listen};
  options.on_handled = [this](const rpc::HandledCall& call) {
    metrics_
        .AddCounter("grpc_server_handled_total", "Calls answered, by method and status",
                    {{"grpc_service", call.service},
                     {"grpc_method", call.method},
                     {"grpc_code", call.code}})
        .Add();
  };
  REIN_ASSIGN_OR_RETURN(auto server, rpc::Server::Create(std::move(options), services));
  log_->Info("listening", {{"grpc", server->address()}, {"admin", endpoint->address()}});
  REIN_RETURN_IF_ERROR(TellAddresses(server->address(), endpoint->address()));
  std::unique_ptr<LeaseClient> lease;
  if (flags_.controller.empty()) {
    fence_.Open();
  } else {
    REIN_ASSIGN_OR_RETURN(
        lease, StartLease(server->address(), std::move(report), std::move(on_new_epoch)));
  }
  endpoint->SetReady(true);
  sigset_t signals = StopSignals();
  int signal = 0;
  sigwait(&signals, &signal);
  log_->Info("stopping", {{"signal", strsignal(signal)}});
  endpoint->SetReady(false);
  server->SetServing(false);
  if (on_stopping_) on_stopping_();
  std::lock_guard<std::mutex> lock(given_up_mutex_);
  return given_up_;
}

absl::Status RoleProcess::TellAddresses(const std::string& address, const std::string& admin) {
  if (on_listening_) on_listening_(address, admin);
  if (flags_.address_file.empty()) return absl::OkStatus();
  // Whole or absent: somebody waits for this file.
  const std::string temporary = flags_.address_file + ".new";
  std::ofstream(temporary) << address << " " << admin << "\n";
  if (rename(temporary.c_str(), flags_.address_file.c_str()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", flags_.address_file));
}

void RoleProcess::Stop() { kill(getpid(), SIGTERM); }

ServiceDeps RoleProcess::deps() {
  return {fence_,   replies_, clock_,
          metrics_, *log_,    [this](const absl::Status& status) { GiveUp(status); }};
}

void RoleProcess::GiveUp(const absl::Status& status) {
  {
    std::lock_guard<std::mutex> lock(given_up_mutex_);
    if (!given_up_.ok()) return;
    given_up_ = status;
  }
  log_->Error("this process cannot go on", {{"error", status.ToString()}});
  Stop();
}

absl::StatusOr<std::unique_ptr<LeaseClient>> RoleProcess::StartLease(
    const std::string& address, std::function<ActorReport()> report,
    std::function<void(uint64_t)> on_new_epoch) {
  LeaseOptions options{.controller = flags_.controller, .report = std::move(report)};
  options.identity.set_role(spec_.role);
  options.identity.set_name(flags_.name);
  std::string port = address.substr(address.rfind(':'));
  options.identity.set_address(flags_.advertise.empty() ? address : flags_.advertise + port);
  options.identity.set_device(flags_.device);
  *options.identity.mutable_build() = spec_.build;
  options.on_new_epoch = [this, call = std::move(on_new_epoch)](uint64_t epoch) {
    replies_.Clear();
    if (call) call(epoch);
  };
  return LeaseClient::Start(std::move(options), fence_, clock_, *log_);
}

int RunRole(RoleSpec spec, int argc, char** argv,
            const std::function<absl::Status(RoleProcess&)>& body) {
  sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: only Serve() waits for them
  signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write, not a death
  const std::string program = absl::StrCat("rein-", spec.role);
  CLI::App app("Rein's " + spec.role + " service", program);
  RoleFlags flags{.name = spec.role};
  bool version = false;
  AddCommonFlags(app, spec, flags, version);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    int code = app.exit(error);
    return code == 0 ? 0 : kExitUsage;
  }
  if (version) {
    std::cout << version::Describe(program, spec.build) << "\n";
    return 0;
  }
  auto log =
      telemetry::Log::Create({.role = spec.role, .actor = flags.name, .file = flags.log_file});
  if (!log.ok()) {
    std::cerr << "error: " << log.status().message() << "\n";
    return ExitCode(log.status());
  }
  RoleProcess process(std::move(spec), std::move(flags), *std::move(log));
  absl::Status status = body(process);
  if (!status.ok()) process.log().Error("gave up", {{"error", status.ToString()}});
  return ExitCode(status);
}

}  // namespace rein::services
