// rein-controller: owns jobs, the run loop, the ledger and the registry of actors.

#include <filesystem>

#include <CLI/CLI.hpp>

#include "common/status/status_macros.h"
#include "common/version/build_version.h"
#include "services/controller/controller_service.h"
#include "services/controller/rpc_connector.h"
#include "services/controller/status_page.h"
#include "services/role/role_process.h"

int main(int argc, char** argv) {
  using namespace rein;
  std::string state = "rein-state", logs;
  double lease_seconds = 10;
  services::RoleSpec spec = {.role = "controller", .build = version::ThisBuild()};
  spec.add_flags = [&](CLI::App& app) {
    app.add_option("--state", state, "Folder of the store, rollouts and results");
    app.add_option("--logs", logs, "Folder with NAME.log of each actor; default: STATE/logs");
    app.add_option("--lease-seconds", lease_seconds, "An actor silent for so long is lost")
        ->check(CLI::Range(0.1, 3600.0));
  };
  return services::RunRole(spec, argc, argv, [&](services::RoleProcess& process) -> absl::Status {
    state = std::filesystem::absolute(state).string();  // other processes get paths under it
    services::RpcConnector connector;
    services::JobRecorder recorder(process.clock(), process.metrics(), process.log());
    services::ControllerOptions options{.folder = state, .lease = absl::Seconds(lease_seconds)};
    auto make = [&](std::function<void()> wake) {
      return services::Controller::Create(options, process.clock(), connector, recorder, wake);
    };
    REIN_ASSIGN_OR_RETURN(auto thread, services::ControllerThread::Start(process.clock(), make));
    const std::string& listen = process.flags().listen;
    bool loopback = listen.rfind("127.", 0) == 0 || listen.rfind("localhost:", 0) == 0;
    services::ControllerServiceImpl service(*thread,
                                            {.build = process.build(),
                                             .log_folder = logs.empty() ? state + "/logs" : logs,
                                             .trusts_folders = loopback});
    process.AddPage("/", [&](const auto&) -> absl::StatusOr<std::string> {
      return thread->Call<std::string>([&](services::Controller& c) {
        return services::StatusPage(c.ListJobs(), c.registry().Actors(), process.build());
      });
    });
    process.OnListening(
        [&](const std::string&, const std::string& admin) { service.SetAdminAddress(admin); });
    process.OnStopping([&] { service.Stop(); });
    return process.Serve({&service}, [] { return services::ActorReport(); });
  });
}
