// rein-rollout: generates completions, as a service or once (`rein-rollout generate`).

#include <cstring>

#include "absl/strings/str_format.h"

#include "common/status/status_macros.h"
#include "common/tensor/torch_runtime.h"
#include "common/version/build_version.h"
#include "common/weights/channel/weight_service.h"
#include "services/role/role_process.h"
#include "services/rollout/generate_command.h"
#include "services/rollout/rollout_service.h"

int main(int argc, char** argv) {
  using namespace rein;
  if (argc > 1 && std::strcmp(argv[1], "generate") == 0) {
    return services::GenerateCommand(argc - 1, argv + 1);
  }
  services::RoleSpec spec = {.role = "rollout",
                             .build = version::ThisBuild(tensor::TorchVersions())};
  return services::RunRole(spec, argc, argv, [](services::RoleProcess& process) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(std::string device,
                          tensor::StartTorch(process.flags().device, process.flags().threads));
    services::RolloutServiceImpl service(device, process.deps());
    weights::SyncMetrics syncs(process.metrics(), "rollout");
    weights::WeightServiceImpl weights(
        [&service] { return service.receiver(); }, process.fence(), &syncs,
        [&process](const absl::Status& status) { process.deps().GiveUpIfFatal(status); });
    auto report = [&service] {
      v1::ActorStatusReply standing = service.Standing();
      services::ActorReport report;
      report.version = standing.version();
      report.load =
          absl::StrFormat("%d running, %d waiting, KV %.0f %%", standing.requests_running(),
                          standing.requests_waiting(), 100 * standing.kv_usage());
      return report;
    };
    return process.Serve({&service, &weights}, report,
                         [&service](uint64_t) { service.DropRequests(); });
  });
}
