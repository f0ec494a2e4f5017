// rein-controller: owns jobs, the run loop, the ledger and the registry of actors.
//
// On a PostgreSQL store several may run: one leads, the others wait for its lease. One that was replaced, or that lost
// the database, ends at once, with code 9, and waits when it is started again.

#include <filesystem>

#include <CLI/CLI.hpp>

#include "common/access/audit_log.h"
#include "common/status/status_macros.h"
#include "common/version/build_version.h"
#include "services/controller/controller_service.h"
#include "services/controller/leader_lease.h"
#include "services/controller/postgres_address.h"
#include "services/controller/rate_limit.h"
#include "services/controller/rpc_connector.h"
#include "services/controller/standby_service.h"
#include "services/controller/web_page.h"
#include "services/role/role_process.h"

namespace {

using namespace rein;

struct StoreFlags {
  std::string url, password_file;
  std::optional<services::PostgresAddress> address;  // none: SQLite
};

absl::Status ReadStoreFlags(StoreFlags& flags) {
  if (flags.url.empty() && flags.password_file.empty()) return absl::OkStatus();
  if (!services::IsPostgresUrl(flags.url)) {
    return absl::InvalidArgumentError(
        "--store: wants postgres://USER@HOST[:PORT]/DATABASE; without it jobs are kept in STATE/controller.db");
  }
  REIN_ASSIGN_OR_RETURN(flags.address, services::ReadPostgresAddress(flags.url, flags.password_file));
  return absl::OkStatus();
}

// Waits until this controller leads; null: it was stopped before. `standby` gets what answers until it serves.
absl::StatusOr<std::unique_ptr<services::LeaderLease>> Lead(services::RoleProcess& process,
                                                            const services::PostgresAddress& address,
                                                            absl::Duration length,
                                                            std::unique_ptr<services::StandbyService>& standby) {
  REIN_ASSIGN_OR_RETURN(auto lease, services::LeaderLease::Open(address, process.flags().name, length));
  auto refusal = [lease = lease.get()] { return lease->NotLeader(); };
  standby = std::make_unique<services::StandbyService>(refusal);
  REIN_ASSIGN_OR_RETURN(bool leads, process.StandBy([&] { return lease->TryTake(); }, *standby, refusal));
  if (!leads) return nullptr;
  process.log().Info("leads", {{"store", address.shown}, {"controller_epoch", std::to_string(lease->epoch())}});
  lease->KeepRenewing([&process](const absl::Status& why) { process.EndNow(why); });
  return lease;
}

}  // namespace

int main(int argc, char** argv) {
  std::string state = "rein-state", outputs, logs;
  StoreFlags store;
  double lease_seconds = 10;
  services::RoleSpec spec = {.role = "controller", .build = version::ThisBuild()};
  spec.add_flags = [&](CLI::App& app) {
    app.add_option("--state", state, "Folder of the store, rollouts and results");
    app.add_option("--outputs", outputs,
                   "Folder of jobs' checkpoints and results, as every role sees it; default: STATE/jobs");
    app.add_option("--logs", logs, "Folder with NAME.log of each actor; default: STATE/logs");
    app.add_option("--store", store.url,
                   "postgres://USER@HOST[:PORT]/DATABASE of jobs and ledger; default: SQLite in STATE/controller.db");
    app.add_option("--store-password-file", store.password_file,
                   "Its first line is the database's password; else PGPASSFILE says where it is");
    app.add_option("--lease-seconds", lease_seconds,
                   "An actor silent for so long is lost; so is a controller that leads, on a PostgreSQL store")
        ->check(CLI::Range(0.1, 3600.0));
  };
  spec.check_flags = [&](services::RoleFlags&) { return ReadStoreFlags(store); };
  return services::RunRole(spec, argc, argv, [&](services::RoleProcess& process) -> absl::Status {
    state = std::filesystem::absolute(state).string();  // other processes get paths under it
    std::unique_ptr<services::LeaderLease> lease;  // outlives the store: given back after its last write
    std::unique_ptr<services::StandbyService> standby;
    std::optional<services::PostgresOptions> postgres;
    if (store.address.has_value()) {
      REIN_ASSIGN_OR_RETURN(lease, Lead(process, *store.address, absl::Seconds(lease_seconds), standby));
      if (lease == nullptr) return absl::OkStatus();
      postgres = {.address = *store.address, .epoch = lease->epoch(), .on_lost = [&process](const absl::Status& why) {
                    process.EndNow(why);
                  }};
    }
    services::RpcConnector connector;
    services::JobRecorder recorder(process.clock(), process.metrics(), process.log());
    services::ControllerOptions options{
        .folder = state, .outputs = outputs, .postgres = postgres, .lease = absl::Seconds(lease_seconds)};
    auto make = [&](std::function<void()> wake) {
      return services::Controller::Create(options, process.clock(), connector, recorder, wake);
    };
    REIN_ASSIGN_OR_RETURN(auto thread, services::ControllerThread::Start(process.clock(), make));
    // Each of several controllers has a chain of its own.
    const std::string audit_file = lease == nullptr ? "/audit.jsonl" : "/audit-" + process.flags().name + ".jsonl";
    REIN_ASSIGN_OR_RETURN(auto audit, access::AuditLog::Open(state + audit_file, process.clock()));
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
        [&](const std::string& address, const std::string& admin) {
          if (lease != nullptr) lease->SetAddress(process.Reached(address));
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
