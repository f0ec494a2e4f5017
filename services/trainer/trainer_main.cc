// rein-trainer: holds the policy's master weights and learns from batches.

#include <CLI/CLI.hpp>

#include "common/status/status_macros.h"
#include "common/tensor/torch_runtime.h"
#include "common/version/build_version.h"
#include "services/role/role_process.h"
#include "services/trainer/trainer_service.h"

int main(int argc, char** argv) {
  using namespace rein;
  parallel::Rendezvous ranks;
  std::vector<std::string> peers;
  services::RoleSpec spec = {.role = "trainer", .build = version::ThisBuild(tensor::TorchVersions())};
  spec.add_flags = [&](CLI::App& app) {
    app.add_option("--ranks", ranks.size, "Processes that train as one (data parallel)");
    app.add_option("--rank", ranks.rank, "Which of them this is; only rank 0 takes --controller");
    app.add_option("--rendezvous-host", ranks.host, "Where rank 0 waits for the others");
    app.add_option("--rendezvous-port", ranks.port, "Its port");
    app.add_option("--peers", peers, "host:port of ranks 1, 2, ...; for rank 0")->delimiter(',');
  };
  return services::RunRole(spec, argc, argv, [&](services::RoleProcess& process) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(std::string device, tensor::StartTorch(process.flags().device,
                                                                 process.flags().threads));
    services::TrainerServiceImpl service(device, ranks, services::PeerRanks(peers), process.fence(),
                                         process.replies(), process.metrics(), process.log());
    return process.Serve({&service}, [&service] {
      services::ActorReport report;
      report.trainer = service.Standing();
      report.version = report.trainer->version();
      report.load = report.trainer->job().empty() ? "idle" : report.trainer->job();
      return report;
    });
  });
}
