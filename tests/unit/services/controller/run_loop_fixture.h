// RunLoopTest drives one job's run against fakes under a virtual clock.

#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "services/controller/run_loop.h"
#include "tests/fakes/fake_prompts.h"
#include "tests/fakes/fake_services.h"

namespace rein::services {

class RunLoopTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/run_loop_test";
    std::filesystem::remove_all(folder_);
    store_ = *Store::Open({.folder = folder_, .durable = false});
    registry_ = *ActorRegistry::Open(*store_, clock_, absl::Hours(1));
    job_.name = "job";
    job_.output = "/out";
    v1::JobConfig& config = job_.config;
    config.set_name("job");
    config.set_seed(7);
    config.mutable_data()->mutable_train()->set_file("train.jsonl");
    config.mutable_checkpoint()->set_keep(2);
    config.mutable_failure()->set_max_attempts(2);
    config.mutable_failure()->set_max_skipped_updates(1);
    config.add_rewards()->mutable_numeric();
    v1::GrpoConfig& grpo = *config.mutable_grpo();
    grpo.set_updates(3);
    grpo.set_prompts(2);
    grpo.set_group_size(2);
    for (const char* role : {"trainer", "rollout", "reference", "reward"}) Register(role);
  }

  void Register(const std::string& role) {
    v1::RegisterRequest request;
    request.set_role(role);
    request.set_name(role + "-0");
    request.set_address("fake");
    request.set_device("cpu");
    ASSERT_TRUE(registry_->Register(request).ok());
  }

  void Begin() { Begin({{"eval", &held_out_}}); }

  void Begin(const std::vector<HeldOutData>& held_out) {
    run_.reset();
    auto run = RunLoop::Begin({.store = *store_,
                               .registry = *registry_,
                               .connector = services_,
                               .clock = clock_,
                               .recorder = recorder_,
                               .train = train_.get(),
                               .held_out = held_out},
                              job_);
    ASSERT_TRUE(run.ok()) << run.status();
    run_ = *std::move(run);
  }

  // Until it ends, or `stop` says so.
  Outcome Run(const std::function<bool()>& stop = [] { return false; }) {
    for (int i = 0; i < 10000 && !run_->outcome().has_value() && !stop(); ++i) {
      absl::Time until = run_->Step();
      if (!services_.Pump() && !run_->outcome().has_value()) {
        if (until == absl::InfiniteFuture()) break;
        clock_.AdvanceTo(std::min(until, clock_.Now() + absl::Minutes(1)));
      }
    }
    return run_->outcome().value_or(Outcome{.state = v1::JOB_STATE_RUNNING, .message = "runs"});
  }

  Outcome RunAll() {
    Begin();
    return Run();
  }

  std::vector<std::string> DropReasons() {
    std::vector<std::string> reasons;
    const v1::LedgerSummary summary = run_->ledger().Summary();
    for (const auto& dropped : summary.dropped()) reasons.push_back(dropped.reason());
    return reasons;
  }

  std::string folder_;
  sync::VirtualClock clock_{absl::FromUnixSeconds(1000)};
  fakes::FakeServices services_;
  std::unique_ptr<fakes::FakePrompts> train_ = std::make_unique<fakes::FakePrompts>(20);
  fakes::FakePrompts held_out_{4}, more_{2};
  fakes::FakeRecorder recorder_;
  JobRecord job_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<ActorRegistry> registry_;
  std::unique_ptr<RunLoop> run_;
};

}  // namespace rein::services
