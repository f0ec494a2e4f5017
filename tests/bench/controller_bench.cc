// What the controller costs by itself: a job with services that answer at once, so that all the
// time is the run loop's, the ledger's and the disk's. Prints one JSON line.
//
//   controller_bench [--rollouts 10000] [--tokens 256] [--updates 3] [--folder DIR]

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "services/controller/run_loop.h"
#include "tests/bench/percentile.h"
#include "tests/fakes/fake_prompts.h"
#include "tests/fakes/fake_services.h"

namespace rein {
namespace {

constexpr uint32_t kGroupSize = 8;
constexpr size_t kAnswersPerStep = 64;  // as many as may come while a step runs

struct Options {
  uint32_t rollouts = 10000;
  int tokens = 256;
  uint32_t updates = 3;
  std::string folder = std::filesystem::temp_directory_path() / "rein-controller-bench";
};

v1::JobConfig ConfigOf(const Options& options) {
  v1::JobConfig config;
  config.set_name("bench");
  config.mutable_data()->mutable_train()->set_file("train");
  config.mutable_failure()->set_max_attempts(1);
  config.add_rewards()->mutable_numeric();
  config.mutable_grpo()->set_updates(options.updates);
  config.mutable_grpo()->set_prompts(options.rollouts / kGroupSize);
  config.mutable_grpo()->set_group_size(kGroupSize);
  return config;
}

int Run(const Options& options) {
  std::filesystem::remove_all(options.folder);
  auto store =
      services::Store::Open({.folder = options.folder});  // durable: every commit is synced
  if (!store.ok()) return std::cerr << store.status() << "\n", 1;
  sync::RealClock clock;
  auto registry = *services::ActorRegistry::Open(**store, clock, absl::Hours(1));
  for (const char* role : {"trainer", "rollout", "reward"}) {
    v1::RegisterRequest request;
    request.set_role(role);
    request.set_name(role);
    request.set_address("fake");
    if (!registry->Register(request).ok()) return 1;
  }
  fakes::FakeServices fakes;
  fakes.on_rollout = [&](v1::Rollout& rollout) {
    v1::Completion& completion = *rollout.mutable_completion();
    for (int i = completion.token_ids_size(); i < options.tokens; ++i) {
      completion.add_token_ids(static_cast<uint32_t>(i * 37 % 50000));
      completion.add_behaviour_logprobs(-0.25f);
    }
  };
  fakes::FakePrompts prompts(1 << 20);
  fakes::FakeRecorder recorder;
  services::JobRecord job{.name = "bench", .output = "/bench"};
  job.config = ConfigOf(options);
  auto run = services::RunLoop::Begin({.store = **store,
                                       .registry = *registry,
                                       .connector = fakes,
                                       .clock = clock,
                                       .recorder = recorder,
                                       .train = &prompts},
                                      job);
  if (!run.ok()) return std::cerr << run.status() << "\n", 1;
  std::vector<double> step_seconds;
  size_t most_waiting = 0;
  absl::Time start = clock.Now();
  while (!(*run)->outcome().has_value()) {
    absl::Time before = clock.Now();
    (*run)->Step();
    step_seconds.push_back(absl::ToDoubleSeconds(clock.Now() - before));
    most_waiting = std::max(most_waiting, fakes.waiting());
    fakes.Pump(kAnswersPerStep);
  }
  double seconds = absl::ToDoubleSeconds(clock.Now() - start);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::cout << nlohmann::ordered_json{{"bench", "controller"},
                                      {"outcome", v1::JobState_Name((*run)->outcome()->state)},
                                      {"concurrent_rollouts", most_waiting},
                                      {"completion_tokens", options.tokens},
                                      {"updates", options.updates},
                                      {"seconds", seconds},
                                      {"rollouts_per_second",
                                       options.rollouts * options.updates / seconds},
                                      {"step_p50_ms", Percentile(step_seconds, 0.5) * 1e3},
                                      {"step_p99_ms", Percentile(step_seconds, 0.99) * 1e3},
                                      {"step_max_ms", Percentile(step_seconds, 1) * 1e3},
                                      {"peak_rss_mb", static_cast<double>(usage.ru_maxrss) / 1024}}
            << "\n";
  run->reset();
  std::filesystem::remove_all(options.folder);
  return 0;
}

}  // namespace
}  // namespace rein

int main(int argc, char** argv) {
  rein::Options options;
  CLI::App app("Measures the controller with services that answer at once");
  app.add_option("--rollouts", options.rollouts, "Rollouts of an update, all at the same time");
  app.add_option("--tokens", options.tokens, "Tokens of a completion");
  app.add_option("--updates", options.updates, "Updates");
  app.add_option("--folder", options.folder, "For the store");
  CLI11_PARSE(app, argc, argv);
  return rein::Run(options);
}
