// rein-trainer: holds the policy's master weights and learns from batches.

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "common/config/host_port.h"
#include "common/status/status_macros.h"
#include "common/tensor/cuda_runtime.h"
#include "common/tensor/torch_runtime.h"
#include "common/version/build_version.h"
#include "services/role/debug_service.h"
#include "services/role/role_process.h"
#include "services/trainer/trainer_service.h"

int main(int argc, char** argv) {
  using namespace rein;
  services::TrainerRanks ranks;
  double timeout_seconds = absl::ToDoubleSeconds(ranks.timeout);
  services::RoleSpec spec = {.role = "trainer", .build = version::ThisBuild(tensor::TorchVersions())};
  int rank = 0;
  spec.add_flags = [&](CLI::App& app) {
    app.add_option("--rank", rank,
                   "0 leads; another rank does what rank 0 says, and tells the controller only that it lives; all may be "
                   "started with the same flags")
        ->check(CLI::Range(0, 1 << 20));
    app.add_option("--peers", ranks.peers,
                   "host:port of trainers that train with this one as ranks 1, 2, ... (data "
                   "parallel)")
        ->delimiter(',');
    app.add_option("--rank-timeout", timeout_seconds,
                   "Seconds after which a rank that does not answer is lost")
        ->check(CLI::Range(0.001, 86400.0))
        ->capture_default_str();
  };
  spec.check_flags = [&](services::RoleFlags& flags) -> absl::Status {
    if (rank > 0 && static_cast<size_t>(rank) > ranks.peers.size()) {
      const size_t world = ranks.peers.size() + 1;
      return absl::InvalidArgumentError(absl::StrCat("--rank ", rank, " of ", world, world == 1 ? " rank" : " ranks", ": want 0 to ", world - 1,
                                                     "; --peers names ranks 1, 2, ...: add this one there, for every rank, or start one trainer less"));
    }
    if (rank > 0) ranks.peers.clear();
    flags.rank = ranks.rank = static_cast<uint32_t>(rank);
    flags.peers = ranks.peers;
    return absl::OkStatus();
  };
  return services::RunRole(spec, argc, argv, [&](services::RoleProcess& process) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(std::string device, tensor::StartTorch(process.flags().device,
                                                                 process.flags().threads));
    if (device != "cpu") {
      const tensor::GpuIdentity gpu = tensor::CurrentGpu();
      process.SetGpu(gpu.name, gpu.id, gpu.cublas);
    }
    const std::string& advertise = process.flags().advertise;
    const std::string& listen = process.flags().listen;
    ranks.host = advertise.empty() ? config::HostOf(listen) : advertise;
    ranks.timeout = absl::Seconds(timeout_seconds);
    services::TrainerServiceImpl service(device, ranks, process.deps());
    services::DebugServiceImpl debug([&service](const auto& request) { return service.Trace(request); });
    return process.Serve({&service, &debug}, [&service] {
      services::ActorReport report;
      report.trainer = service.Standing();
      report.version = report.trainer->version();
      report.load = report.trainer->job().empty() ? "idle" : report.trainer->job();
      return report;
    });
  });
}
