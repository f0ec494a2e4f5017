// rein-reference: log-probs under a frozen policy and scores of reward models, as a service; log-probs once
// (`rein-reference score`); and what model folders hold (`rein-reference models`).

#include <cstring>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "common/tensor/cuda_runtime.h"
#include "common/tensor/torch_runtime.h"
#include "common/version/build_version.h"
#include "common/weights/channel/weight_service.h"
#include "services/reference/models_command.h"
#include "services/reference/reference_service.h"
#include "services/reference/score_command.h"
#include "services/role/debug_service.h"
#include "services/role/role_process.h"

int main(int argc, char** argv) {
  using namespace rein;
  if (argc > 1 && std::strcmp(argv[1], "score") == 0) {
    return services::ScoreCommand(argc - 1, argv + 1);
  }
  if (argc > 1 && std::strcmp(argv[1], "models") == 0) {
    return services::ModelsCommand(argc - 1, argv + 1);
  }
  services::RoleSpec spec = {.role = "reference",
                             .build = version::ThisBuild(tensor::TorchVersions())};
  return services::RunRole(spec, argc, argv, [](services::RoleProcess& process) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(std::string device,
                          tensor::StartTorch(process.flags().device, process.flags().threads));
    if (device != "cpu") {
      const tensor::GpuIdentity gpu = tensor::CurrentGpu();
      process.SetGpu(gpu.name, gpu.id, gpu.cublas);
    }
    services::ReferenceServiceImpl service(device, process.deps());
    weights::SyncMetrics syncs(process.metrics(), "reference");
    weights::WeightServiceImpl weights(
        [&service] { return service.receiver(); }, process.fence(), &syncs,
        [&process](const absl::Status& status) { process.deps().GiveUpIfFatal(status); });
    services::RewardModelServiceImpl reward_models(service, process.deps());
    services::DebugServiceImpl debug([&service](const auto& request) { return service.Trace(request); });
    return process.Serve({&service, &reward_models, &weights, &debug}, [&service] {
      v1::ActorStatusReply standing = service.Standing();
      services::ActorReport report;
      report.version = standing.version();
      report.load = absl::StrCat(standing.requests_running(), " running");
      return report;
    });
  });
}
