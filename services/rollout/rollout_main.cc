// rein-rollout: generates completions, as a service or once (`rein-rollout generate`).

#include <cstring>
#include <optional>

#include "absl/strings/str_format.h"
#include <CLI/CLI.hpp>

#include "common/status/status_macros.h"
#include "common/tensor/cuda_runtime.h"
#include "common/tensor/torch_runtime.h"
#include "common/version/build_version.h"
#include "common/weights/channel/weight_service.h"
#include "services/role/debug_service.h"
#include "services/role/role_process.h"
#include "services/rollout/chat_service.h"
#include "services/rollout/generate_command.h"
#include "services/rollout/openai_door.h"
#include "services/rollout/rollout_service.h"

int main(int argc, char** argv) {
  using namespace rein;
  if (argc > 1 && std::strcmp(argv[1], "generate") == 0) {
    return services::GenerateCommand(argc - 1, argv + 1);
  }
  services::RoleSpec spec = {.role = "rollout",
                             .build = version::ThisBuild(tensor::TorchVersions())};
  std::string openai;
  spec.add_flags = [&](CLI::App& app) {
    app.add_option("--openai", openai, "host:port at which OpenAI's clients talk to the policy; default: nowhere");
  };
  spec.check_flags = [&](services::RoleFlags& flags) -> absl::Status {
    return openai.empty() ? absl::OkStatus() : tls::CheckReach("--openai", openai, !flags.tls.empty());
  };
  return services::RunRole(spec, argc, argv, [&](services::RoleProcess& process) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(std::string device,
                          tensor::StartTorch(process.flags().device, process.flags().threads));
    if (device != "cpu") {
      const tensor::GpuIdentity gpu = tensor::CurrentGpu();
      process.SetGpu(gpu.name, gpu.id, gpu.cublas);
    }
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
    services::OpenAiDoor door([&service] { return service.session(); });
    std::unique_ptr<http::HttpServer> http;
    if (!openai.empty()) {
      http::HttpOptions options = process.HttpOptionsFor(openai);
      options.limit = nullptr;  // the engine has its own queue
      options.threads = services::OpenAiDoor::kThreads;
      options.routes = door.Routes();
      options.max_body_bytes = 16 << 20;
      REIN_ASSIGN_OR_RETURN(http, http::HttpServer::Create(std::move(options)));
      process.log().Info("OpenAI's clients are served", {{"address", http->address()}});
    }
    process.OnStopping([&door] { door.Stop(); });
    services::DebugServiceImpl debug([&service](const auto& request) { return service.Trace(request); });
    services::ChatServiceImpl chat(door);
    return process.Serve({&service, &weights, &debug, &chat}, report,
                         [&service](uint64_t) { service.DropRequests(); });
  });
}
