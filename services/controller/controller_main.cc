// rein-controller: owns jobs, the run loop, the ledger and the registry of actors.

#include <filesystem>

#include <CLI/CLI.hpp>

#include "common/access/audit_log.h"
#include "common/status/status_macros.h"
#include "common/version/build_version.h"
#include "services/controller/controller_service.h"
#include "services/controller/rate_limit.h"
#include "services/controller/rpc_connector.h"
#include "services/controller/web_page.h"
#include "services/role/role_process.h"

int main(int argc, char** argv) {
  using namespace rein;
  std::string state = "rein-state", outputs, logs;
  double lease_seconds = 10;
  services::RoleSpec spec = {.role = "controller", .build = version::ThisBuild()};
  spec.add_flags = [&](CLI::App& app) {
    app.add_option("--state", state, "Folder of the store, rollouts and results");
    app.add_option("--outputs", outputs,
                   "Folder of jobs' checkpoints and results, as every role sees it; default: STATE/jobs");
    app.add_option("--logs", logs, "Folder with NAME.log of each actor; default: STATE/logs");
    app.add_option("--lease-seconds", lease_seconds, "An actor silent for so long is lost")
        ->check(CLI::Range(0.1, 3600.0));
  };
  return services::RunRole(spec, argc, argv, [&](services::RoleProcess& process) -> absl::Status {
    state = std::filesystem::absolute(state).string();  // other processes get paths under it
    services::RpcConnector connector;
    services::JobRecorder recorder(process.clock(), process.metrics(), process.log());
    services::ControllerOptions options{
        .folder = state, .outputs = outputs, .lease = absl::Seconds(lease_seconds)};
    auto make = [&](std::function<void()> wake) {
      return services::Controller::Create(options, process.clock(), connector, recorder, wake);
    };
    REIN_ASSIGN_OR_RETURN(auto thread, services::ControllerThread::Start(process.clock(), make));
    REIN_ASSIGN_OR_RETURN(auto audit,
                          access::AuditLog::Open(state + "/audit.jsonl", process.clock()));
    services::RateLimit refusals(process.clock(), /*per_second=*/10);
    process.OnRefused([&](const std::string& path, const access::Caller& caller,
                          const absl::Status& refusal) {
      if (!refusals.Take()) return;  // a flood is counted, and named in the log; the disk is for the rest
      absl::Status written = audit->Append({caller.Name(), path, "", absl::StatusCodeToString(refusal.code())});
      if (!written.ok()) process.log().Error("no audit", {{"error", written.ToString()}});
    });
    services::ControllerServiceImpl service(
        *thread, {.build = process.build(),
                  .log_folder = logs.empty() ? state + "/logs" : logs,
                  .trusts_folders = tls::IsLoopback(process.flags().listen),
                  .state_folder = state,
                  .caller_of = [&](const auto& context) { return process.CallerOf(context); },
                  .audit = audit.get()});
    services::WebPage page(*thread, service, process.build());
    process.AddRoutes(page.Routes(), services::WebPage::kThreads);
    process.OnScrape([&] {
      thread->Call<bool>([](services::Controller& c) {
        c.Measure();
        return true;
      });
    });
    process.OnListening(
        [&](const std::string&, const std::string& admin) {
          service.SetAdminAddress(admin);
          page.SetAdminAddress(admin);
        });
    process.OnStopping([&] {
      service.Stop();
      page.Stop();
    });
    return process.Serve({&service}, [] { return services::ActorReport(); });
  });
}
