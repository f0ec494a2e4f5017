// rein-reward: scores completions by rules, for any number of callers.

#include <algorithm>
#include <thread>

#include "common/status/status_macros.h"
#include "common/version/build_version.h"
#include "services/environment/environment_service.h"
#include "services/reward/remote_scorer.h"
#include "services/reward/reward_service.h"
#include "services/reward/tool_programs.h"
#include "services/role/role_process.h"

int main(int argc, char** argv) {
  using namespace rein;
  services::RoleSpec spec = {.role = "reward", .build = version::ThisBuild()};
  return services::RunRole(spec, argc, argv, [](services::RoleProcess& process) -> absl::Status {
    int cores = static_cast<int>(std::thread::hardware_concurrency());
    int threads = process.flags().threads > 0 ? process.flags().threads : std::max(cores, 1);
    REIN_ASSIGN_OR_RETURN(
        auto scorer, reward::Scorer::Create({.threads = threads,
                                             .remote = services::MakeRemoteScorer(),
                                             .observer = services::MeasureRules(process.metrics())},
                                            process.clock()));
    services::RewardServiceImpl service(*scorer, process.clock());
    // The tools of environments run here too: what a model wrote runs where the sandbox is.
    rollout::ToolEnvironment tools(services::RunToolProgram);
    services::EnvironmentServiceImpl environments(tools);
    return process.Serve({&service, &environments}, [] { return services::ActorReport(); });
  });
}
