// rein-trainer: holds the policy's master weights and learns from batches.

#include "common/status/status_macros.h"
#include "common/tensor/torch_runtime.h"
#include "common/version/build_version.h"
#include "services/role/role_process.h"
#include "services/trainer/trainer_service.h"

int main(int argc, char** argv) {
  using namespace rein;
  services::RoleSpec spec = {.role = "trainer", .build = version::ThisBuild(tensor::TorchVersions())};
  return services::RunRole(spec, argc, argv, [](services::RoleProcess& process) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(std::string device, tensor::StartTorch(process.flags().device,
                                                                 process.flags().threads));
    services::TrainerServiceImpl service(device, process.fence(), process.replies(),
                                         process.metrics(), process.log());
    return process.Serve({&service}, [&service] {
      services::ActorReport report;
      report.trainer = service.Standing();
      report.version = report.trainer->version();
      report.load = report.trainer->job().empty() ? "idle" : report.trainer->job();
      return report;
    });
  });
}
