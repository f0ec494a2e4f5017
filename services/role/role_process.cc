#include "services/role/role_process.h"

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/numbers.h"
#include <CLI/CLI.hpp>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/config/host_port.h"
#include "common/http/admin_routes.h"
#include "common/rpc/address_list.h"
#include "common/rpc/credentials.h"
#include "common/rpc/server.h"
#include "common/status/fatal.h"
#include "common/status/status_macros.h"
#include "common/version/build_version.h"

namespace rein::services {
namespace {

constexpr int kExitUsage = 2;
constexpr int kExitGivenUp = 9;
constexpr absl::Duration kTakeEvery = absl::Milliseconds(300);

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

// CLI11's validators answer with what is wrong.
std::string CheckAddress(const std::string& address) {
  const std::string colon_port = config::PortOf(address);
  int port = -1;
  const bool good = colon_port.size() > 1 && colon_port.size() < address.size() &&
                    absl::SimpleAtoi(colon_port.substr(1), &port) && port >= 0 && port <= 65535;
  return good ? "" : absl::StrCat("wants host:port, got '", address, "'");
}

std::string CheckGroup(const std::string& group) {
  return config::IsName(group) ? "" : absl::StrCat("wants ", config::kNameRule, "; got '", group, "'");
}

std::string CheckAddresses(const std::string& addresses) {
  const rpc::AddressList list(addresses);
  for (const std::string& address : list.all()) {
    if (std::string wrong = CheckAddress(address); !wrong.empty()) return wrong;
  }
  return "";
}

std::string CheckDevice(const std::string& device) {
  int number = -1;
  const bool gpu = device.rfind("gpu:", 0) == 0 && absl::SimpleAtoi(device.substr(4), &number);
  return device == "cpu" || (gpu && number >= 0) ? ""
                                                 : absl::StrCat("wants cpu or gpu:N, got '", device, "'");
}

// Keys and tokens are in memory: a crash must not write them to a disk.
void NoCoreFile() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
}

void AddCommonFlags(CLI::App& app, const RoleSpec& spec, RoleFlags& flags, bool& version) {
  app.add_option("--listen", flags.listen, "host:port of the gRPC server; port 0: any free one")
      ->check(CheckAddress)
      ->capture_default_str();
  app.add_option("--admin", flags.admin, "host:port of /metrics, /healthz and /readyz")
      ->check(CheckAddress)
      ->capture_default_str();
  app.add_option("--tls", flags.tls,
                 "Folder with ca.crt, tls.crt and tls.key; without it only this machine is listened to");
  app.add_option("--tokens", flags.tokens, "File of user tokens (rein token add)");
  app.add_option("--name", flags.name,
                 spec.role == "controller" ? "Name of this controller; default: controller"
                                           : absl::StrCat("Name of this actor, its own in all groups; default: ", spec.role,
                                                          ", of another group than ", config::kDefaultGroup, " GROUP-", spec.role));
  app.add_option("--log-file", flags.log_file, "Append the log here instead of standard error");
  app.add_option("--log-mib", flags.log_mib,
                 absl::StrCat("A log file with so many MiB becomes FILE.1, that FILE.2, ...; ", telemetry::kOlderLogFiles, " are kept"))
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--address-file", flags.address_file,
                 "Write the addresses of both ports here once they listen");
  app.add_option("--advertise", flags.advertise,
                 "Host that the other services reach this one at; default: that of --listen");
  app.add_flag("--reflection", flags.reflection,
               "Serve gRPC reflection, by which grpcurl finds methods and messages (with --tls to users only)");
  app.add_flag("--version", version, "Print the version and leave");
  if (spec.role != "controller") {
    app.add_option("--controller", flags.controller,
                   "host:port of the controller, several with commas; none: serve all")
        ->check(CheckAddresses);
    app.add_option("--group", flags.group, "Group of actors that this one works in; each runs one job at a time")
        ->check(CheckGroup)
        ->capture_default_str();
    app.add_option("--device", flags.device, "cpu, gpu:0, ...")
        ->check(CheckDevice)
        ->capture_default_str();
    app.add_option("--threads", flags.threads, "Threads of computing; 0: one per core")
        ->check(CLI::Range(0, 1 << 20));
  }
  if (spec.add_flags) spec.add_flags(app);
}

}  // namespace

absl::StatusOr<RoleProcess::Files> RoleProcess::OpenFiles(const RoleFlags& flags,
                                                          const sync::Clock& clock) {
  Files files;
  if (!flags.tls.empty()) {
    REIN_ASSIGN_OR_RETURN(files.tls, tls::OpenTlsFolder(flags.tls));
  }
  REIN_RETURN_IF_ERROR(tls::CheckReach("--listen", flags.listen, files.tls.has_value()));
  REIN_RETURN_IF_ERROR(tls::CheckReach("--admin", flags.admin, files.tls.has_value()));
  REIN_ASSIGN_OR_RETURN(files.tokens, access::UserTokens::Open(flags.tokens, clock));
  return files;
}

RoleProcess::RoleProcess(RoleSpec spec, RoleFlags flags, std::unique_ptr<telemetry::Log> log,
                         Files files)
    : spec_(std::move(spec)),
      flags_(std::move(flags)),
      log_(std::move(log)),
      files_(std::move(files)),
      listen_(flags_.listen),
      admin_(flags_.admin) {
  auto refused = [this](const std::string& path, const access::Caller& caller,
                        const absl::Status& refusal) {
    metrics_
        .AddCounter("rein_rpc_refused_total", "Calls refused to their caller",
                    {{"code", absl::StatusCodeToString(refusal.code())}})
        .Add();
    log_->Warn("call refused", {{"method", path},
                                {"caller", caller.Name()},
                                {"why", std::string(refusal.message())}});
    if (on_refused_) on_refused_(path, caller, refusal);
  };
  gate_ = std::make_shared<rpc::AccessGate>(files_.tokens.get(), refused, &limit_);
  if (files_.tls.has_value()) {
    // Users come to the controller, with a token where they have no certificate.
    auto wanted = spec_.role == "controller" ? rpc::ClientCertificates::kOptional
                                             : rpc::ClientCertificates::kRequired;
    rpc::Credentials::UseForProcess(rpc::Credentials::Tls(*files_.tls, gate_, wanted));
  }
  metrics_
      .AddGauge("rein_build_info", "What this process was built from",
                {{"version", spec_.build.release()},
                 {"git_sha", spec_.build.git_hash()},
                 {"torch", spec_.build.torch()},
                 {"cuda", spec_.build.cuda()}})
      .Set(1);
}

RoleProcess::~RoleProcess() = default;

void RoleProcess::AddRoutes(std::vector<http::Route> routes, int threads) {
  for (http::Route& route : routes) routes_.push_back(std::move(route));
  http_threads_ += threads;
}

void RoleProcess::OnRefused(rpc::AccessGate::OnRefused call) { on_refused_ = std::move(call); }

http::HttpOptions RoleProcess::HttpOptionsFor(const std::string& address) {
  return {.address = address, .tls = files_.tls, .tokens = files_.tokens.get(), .limit = &limit_};
}

void RoleProcess::OnListening(std::function<void(const std::string&, const std::string&)> call) {
  on_listening_ = std::move(call);
}

void RoleProcess::OnStopping(std::function<void()> call) { on_stopping_ = std::move(call); }

struct RoleProcess::Waiting {
  std::atomic<bool> ready = false;
  std::unique_ptr<http::HttpServer> endpoint;
  std::unique_ptr<rpc::Server> server;
};

absl::StatusOr<std::unique_ptr<RoleProcess::Waiting>> RoleProcess::Wait(
    grpc::Service& service, const std::function<absl::Status()>& refusal) {
  auto waiting = std::make_unique<Waiting>();
  http::HttpOptions http = HttpOptionsFor(admin_);
  http.routes = http::AdminRoutes(metrics_, waiting->ready);
  http.routes.push_back({"GET", "/", access::UserRole::kNone, [refusal](const http::Request&, http::Response& response) {
                           response.SetError(refusal());
                         }});
  REIN_ASSIGN_OR_RETURN(waiting->endpoint, http::HttpServer::Create(std::move(http)));
  REIN_ASSIGN_OR_RETURN(waiting->server, rpc::Server::Create({.address = listen_}, {&service}));
  waiting->server->SetServing(false);
  listen_ = waiting->server->address();
  admin_ = waiting->endpoint->address();
  log_->Info("waiting", {{"grpc", listen_}, {"admin", admin_}, {"why", std::string(refusal().message())}});
  REIN_RETURN_IF_ERROR(TellAddresses(listen_, admin_));
  return waiting;
}

absl::StatusOr<bool> RoleProcess::StandBy(const std::function<absl::StatusOr<bool>()>& take,
                                          grpc::Service& service,
                                          const std::function<absl::Status()>& refusal) {
  sigset_t signals = StopSignals();
  const timespec pause = absl::ToTimespec(kTakeEvery);
  bool told = false;
  while (true) {
    absl::StatusOr<bool> taken = take();
    if (taken.ok() && *taken) return true;
    if (!taken.ok() && !absl::IsUnavailable(taken.status())) return taken.status();
    if (!taken.ok() && !told) log_->Warn("trying on", {{"error", taken.status().ToString()}});
    told = !taken.ok();
    if (waiting_ == nullptr) {
      REIN_ASSIGN_OR_RETURN(waiting_, Wait(service, refusal));
    }
    const int signal = sigtimedwait(&signals, nullptr, &pause);
    if (signal <= 0) continue;
    log_->Info("stopping", {{"signal", strsignal(signal)}});
    waiting_.reset();
    return false;
  }
}

absl::Status RoleProcess::Serve(const std::vector<grpc::Service*>& services,
                                std::function<ActorReport()> report,
                                std::function<void(uint64_t)> on_new_epoch) {
  waiting_.reset();  // its ports are taken over
  http::HttpOptions http = HttpOptionsFor(admin_);
  http.threads = http_threads_;
  http.routes = http::AdminRoutes(metrics_, ready_, on_scrape_);
  http.routes.insert(http.routes.end(), routes_.begin(), routes_.end());
  REIN_ASSIGN_OR_RETURN(auto endpoint, http::HttpServer::Create(std::move(http)));
  rpc::ServerOptions options{.address = listen_};
  options.reflection = flags_.reflection;
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
  if (flags_.controller.empty() || flags_.rank > 0) fence_.Open();
  if (!flags_.controller.empty()) {
    REIN_ASSIGN_OR_RETURN(
        lease, StartLease(server->address(), endpoint->address(), std::move(report),
                          std::move(on_new_epoch)));
  }
  ready_ = true;
  sigset_t signals = StopSignals();
  int signal = 0;
  sigwait(&signals, &signal);
  log_->Info("stopping", {{"signal", strsignal(signal)}});
  ready_ = false;
  server->SetServing(false);
  if (on_stopping_) on_stopping_();
  std::lock_guard<std::mutex> lock(given_up_mutex_);
  return given_up_;
}

void RoleProcess::EndNow(const absl::Status& status) {
  log_->Error("this process ends", {{"error", status.ToString()}});
  _exit(kExitGivenUp);
}

std::string RoleProcess::Reached(const std::string& own) const {
  return flags_.advertise.empty() ? own : flags_.advertise + config::PortOf(own);
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

void RoleProcess::SetGpu(const std::string& name, const std::string& id, const std::string& cublas) {
  spec_.build.set_gpu(name);
  spec_.build.set_cublas(cublas);
  device_id_ = id;
}

absl::StatusOr<std::unique_ptr<LeaseClient>> RoleProcess::StartLease(
    const std::string& address, const std::string& admin, std::function<ActorReport()> report,
    std::function<void(uint64_t)> on_new_epoch) {
  LeaseOptions options{.controller = flags_.controller, .report = std::move(report)};
  options.identity.set_role(spec_.role);
  options.identity.set_name(flags_.name);
  options.identity.set_group(flags_.group);
  options.identity.set_address(Reached(address));
  options.identity.set_admin_address(Reached(admin));
  options.identity.set_rank(flags_.rank);
  options.identity.mutable_peers()->Add(flags_.peers.begin(), flags_.peers.end());
  options.identity.set_device(flags_.device);
  options.identity.set_device_id(device_id_);
  *options.identity.mutable_build() = spec_.build;
  options.on_new_epoch = [this, call = std::move(on_new_epoch)](uint64_t epoch) {
    if (flags_.rank == 0) replies_.Clear();  // the others' calls are of rank 0, whose epoch counts
    if (call) call(epoch);
  };
  return LeaseClient::Start(std::move(options), flags_.rank > 0 ? rank_lease_ : fence_, clock_, *log_);
}

int RunRole(RoleSpec spec, int argc, char** argv,
            const std::function<absl::Status(RoleProcess&)>& body) {
  sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: only Serve() waits for them
  signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write, not a death
  const std::string program = absl::StrCat("rein-", spec.role);
  CLI::App app("Rein's " + spec.role + " service", program);
  RoleFlags flags;
  bool version = false, check = false;
  AddCommonFlags(app, spec, flags, version);
  app.add_flag("--check", check, "Check flags and files as a start would, and leave");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    int code = app.exit(error);
    return code == 0 ? 0 : kExitUsage;
  }
  if (flags.name.empty()) {
    flags.name = flags.group == config::kDefaultGroup ? spec.role : absl::StrCat(flags.group, "-", spec.role);
  }
  if (version) {
    std::cout << version::Describe(program, spec.build) << "\n";
    return 0;
  }
  absl::Status checked = spec.check_flags ? spec.check_flags(flags) : absl::OkStatus();
  static const sync::RealClock clock;
  absl::StatusOr<RoleProcess::Files> files = RoleProcess::OpenFiles(flags, clock);
  if (checked.ok()) checked = files.status();
  if (!checked.ok() || check) {
    if (!checked.ok()) std::cerr << "error: " << checked.message() << "\n";
    if (checked.ok()) std::cout << program << ": flags and files are good\n";
    return ExitCode(checked);
  }
  if (!flags.tls.empty() || !flags.tokens.empty()) NoCoreFile();
  auto log = telemetry::Log::Create({.role = spec.role,
                                     .actor = flags.name,
                                     .file = flags.log_file,
                                     .max_bytes = uint64_t{flags.log_mib} << 20});
  if (!log.ok()) {
    std::cerr << "error: " << log.status().message() << "\n";
    return ExitCode(log.status());
  }
  RoleProcess process(std::move(spec), std::move(flags), *std::move(log), *std::move(files));
  absl::Status status = body(process);
  if (!status.ok()) process.log().Error("gave up", {{"error", status.ToString()}});
  return ExitCode(status);
}

}  // namespace rein::services
