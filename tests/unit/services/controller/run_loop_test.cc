#include "services/controller/run_loop.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"

#include "tests/fakes/fake_prompts.h"
#include "tests/fakes/fake_services.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

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

TEST_F(RunLoopTest, AJobRunsToItsEnd) {
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  EXPECT_EQ(job_.updates_done, 3);
  EXPECT_EQ(job_.digest, services_.trainer_service.weights().digest);
  ASSERT_EQ(recorder_.updates.size(), 3);
  EXPECT_EQ(recorder_.updates[2].update(), 3);
  EXPECT_EQ(run_->ledger().Summary().consumed(), 6);
  EXPECT_EQ(services_.publishes, 3);  // not after the last update: nobody needs it
  EXPECT_EQ(store_->ReadCheckpoints("job")->size(), 1);
  EXPECT_EQ(services_.truth.checkpoints.count("/out/model"), 1);
}

TEST_F(RunLoopTest, HeldOutDataIsScoredBeforeAndAfter) {
  job_.config.mutable_data()->mutable_eval()->set_file("eval.jsonl");
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  ASSERT_EQ(recorder_.evals.size(), 2);
  EXPECT_EQ(recorder_.evals[0].update(), 0);
  EXPECT_EQ(recorder_.evals[1].update(), 3);
  EXPECT_EQ(recorder_.evals[1].prompts(), 4);
  ASSERT_EQ(recorder_.evals[1].examples_size(), 4);
  EXPECT_EQ(recorder_.evals[1].examples(1).prompt(), "prompt 1");
  EXPECT_EQ(recorder_.evals[1].examples(1).answer(), "1");
}

TEST_F(RunLoopTest, WithoutUpdatesTheJobIsOnePassWithASmallerLastUpdate) {
  job_.config.mutable_grpo()->clear_updates();
  job_.config.mutable_grpo()->set_prompts(7);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job_.updates_done, 3);
  EXPECT_EQ(services_.loaded_job.grpo().updates(), 3);  // so that schedules know their end
  v1::LedgerSummary summary = run_->ledger().Summary();
  EXPECT_EQ(summary.consumed() + static_cast<uint64_t>(summary.dropped_size()), 20);
  EXPECT_EQ(DropReasons(), (std::vector<std::string>(5, "score: numeric: took longer than 10 s")));
}

TEST_F(RunLoopTest, GroupsWithoutSignalAreReplaced) {
  job_.config.mutable_grpo()->set_dynamic_sampling(true);
  services_.on_rollout = [](v1::Rollout& rollout) {  // even prompts: one right, one wrong; else both wrong
    const uint64_t prompt = rollout.group().prompt();
    const bool right = prompt % 2 == 0 && rollout.sibling() == 1;
    rollout.mutable_completion()->set_text(right ? std::to_string(prompt) : "wrong");
  };
  services_.on_update = [](const v1::UpdateRequest& request) {
    for (int i = 0; i < request.sequences_size(); i += 2) {
      EXPECT_NE(request.sequences(i).reward(), request.sequences(i + 1).reward());
    }
    EXPECT_EQ(request.sequences_size(), 4);
    return absl::OkStatus();
  };
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(run_->ledger().Summary().consumed(), 6);
  std::vector<std::string> reasons = DropReasons();
  EXPECT_THAT(reasons, testing::Contains("dynamic_sampling: every reward is 0"));
}

TEST_F(RunLoopTest, AJobWithoutAnySignalFailsAndSaysWhy) {
  job_.config.mutable_grpo()->set_dynamic_sampling(true);
  services_.on_rollout = [](v1::Rollout& rollout) { rollout.mutable_completion()->set_text("wrong"); };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_FAILED);
  EXPECT_THAT(outcome.message, HasSubstr("dynamic_sampling: every reward is 0"));
}

TEST_F(RunLoopTest, AGreedySiblingIsScoredButNotTrainedOn) {
  v1::GrpoConfig remax = job_.config.grpo();
  remax.set_group_size(1);
  remax.set_advantage(v1::ADVANTAGE_GREEDY_BASELINE);
  remax.set_temperature(1);
  *job_.config.mutable_remax() = remax;
  services_.on_generate = [&](const v1::GenerateRequest& request) {
    EXPECT_EQ(request.siblings_size(), 1);
    EXPECT_EQ(request.sampling().temperature(), request.siblings(0) == 1 ? 0 : 1);
    return absl::OkStatus();
  };
  services_.on_rollout = [](v1::Rollout& rollout) {  // the greedy one is right
    const std::string answer = std::to_string(rollout.group().prompt());
    rollout.mutable_completion()->set_text(rollout.sibling() == 1 ? answer : "wrong");
  };
  services_.on_update = [](const v1::UpdateRequest& request) {
    EXPECT_EQ(request.sequences_size(), 2);
    for (const v1::TrainingSequence& sequence : request.sequences()) {
      EXPECT_EQ(sequence.reward(), 0);
      EXPECT_EQ(sequence.greedy_reward(), 1);
    }
    return absl::OkStatus();
  };
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(run_->ledger().Summary().consumed(), 6);
}

TEST_F(RunLoopTest, AnUpdateThatIsNotFiniteIsSkippedAndItsGroupsAreDropped) {
  int calls = 0;
  services_.on_update = [&](const v1::UpdateRequest&) {
    return ++calls == 2 ? absl::AbortedError("loss is not finite (first: rollout 3/0)")
                        : absl::OkStatus();
  };
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job_.updates_done, 3);
  EXPECT_EQ(run_->ledger().Summary().consumed(), 6);
  std::vector<std::string> reasons = DropReasons();
  ASSERT_GE(reasons.size(), 2);
  EXPECT_EQ(reasons[0], "update 2 was skipped: loss is not finite (first: rollout 3/0)");
}

TEST_F(RunLoopTest, TooManySkippedUpdatesInARowEndTheJob) {
  services_.on_update = [](const v1::UpdateRequest&) {
    return absl::AbortedError("loss is not finite");
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_FAILED);
  EXPECT_EQ(outcome.message,
            "update 1: loss is not finite; 2 in a row were skipped, none was applied");
}

TEST_F(RunLoopTest, AFullDiskEndsTheJobAndNamesWhatIsIntact) {
  job_.config.mutable_checkpoint()->set_every(1);
  services_.on_save = [](const v1::SaveRequest& request) {
    return request.path() == "/out/checkpoints/2" ? absl::ResourceExhaustedError("No space left")
                                                  : absl::OkStatus();
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_FAILED);
  EXPECT_EQ(outcome.message,
            "trainer cannot write checkpoint 2 (checkpoint 1 is intact): No space left");
}

TEST_F(RunLoopTest, OldCheckpointsAreForgottenThenRemoved) {
  job_.config.mutable_checkpoint()->set_every(1);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(recorder_.removed, std::vector<std::string>{"/out/checkpoints/1"});
  EXPECT_EQ(store_->ReadCheckpoints("job")->size(), 2);
}

TEST_F(RunLoopTest, AModelThatDoesNotFitIsTold) {
  services_.on_load = [](const v1::LoadTrainerRequest&) {
    return absl::InvalidArgumentError("model.layers.0.q has shape [2, 2], wanted [4, 4]");
  };
  EXPECT_EQ(RunAll().message,
            "trainer cannot load the model: model.layers.0.q has shape [2, 2], wanted [4, 4]");
}

TEST_F(RunLoopTest, AGeneratorThatGoesOnRefusingEndsTheJobButAFenceDoesNot) {
  int calls = 0;
  services_.on_load_model = [&](const v1::LoadModelRequest&) {
    return ++calls <= 12 ? absl::FailedPreconditionError("fence.actor_epoch: the call means ...")
                         : absl::FailedPreconditionError("the tokenizer has 9 tokens, the model 8");
  };
  EXPECT_EQ(RunAll().message,
            "rollout-0 cannot load the model: the tokenizer has 9 tokens, the model 8");
  EXPECT_EQ(calls, 13);
}

TEST_F(RunLoopTest, WrongRulesEndTheJob) {
  services_.on_score = [](const v1::ScoreRewardsRequest&) {
    return absl::InvalidArgumentError("rules[0]: no such thing");
  };
  EXPECT_EQ(RunAll().message, "rewards: rules[0]: no such thing");
}

TEST_F(RunLoopTest, APromptThatCannotBeGeneratedIsDroppedWithTheReason) {
  services_.on_generate = [](const v1::GenerateRequest& request) {
    return request.group().prompt() % 4 == 0
               ? absl::InvalidArgumentError("prompt has 900 tokens, the context 512")
               : absl::OkStatus();
  };
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(DropReasons(),
              ::testing::Contains("generate: prompt has 900 tokens, the context 512"));
  EXPECT_EQ(run_->ledger().Summary().consumed(), 6);
}

TEST_F(RunLoopTest, AScorerThatIsAwayIsWaitedFor) {
  int calls = 0;
  services_.on_score = [&](const v1::ScoreRewardsRequest&) {
    return ++calls < 8 ? absl::UnavailableError("away") : absl::OkStatus();
  };
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_GE(calls, 8);
}

TEST_F(RunLoopTest, LongPromptsAreAnErrorOrLeftOut) {
  job_.config.mutable_data()->set_max_prompt_tokens(1);
  EXPECT_THAT(
      RunAll().message,
      HasSubstr(
          "of train.jsonl has 2 tokens, at most 1 are allowed (data.drop_long_prompts: true"));
  job_.config.mutable_data()->set_drop_long_prompts(true);
  job_.name = "another";
  EXPECT_EQ(RunAll().message,
            "every prompt of a whole pass over the data was dropped; see describe");
}

TEST_F(RunLoopTest, APromptThatFillsTheContextIsAnErrorThatNamesIt) {
  train_->context = 2;
  EXPECT_THAT(RunAll().message,
              HasSubstr("of train.jsonl has 2 tokens, the model takes 2 with the completion"));
}

TEST_F(RunLoopTest, AJobWhoseEveryPromptIsGivenUpEnds) {
  services_.on_generate = [](const v1::GenerateRequest&) {
    return absl::InvalidArgumentError("no prompt will do");
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_FAILED);
  EXPECT_EQ(outcome.message,
            "every prompt of a whole pass over the data was dropped; the last: generate: no prompt "
            "will do");
  EXPECT_LE(run_->ledger().Summary().dropped_size(), 22);  // a pass has 20 prompts
}

TEST_F(RunLoopTest, APausedJobSavesAndGoesOnWhereItStopped) {
  Begin();
  Run([&] { return job_.updates_done == 2; });
  run_->Pause();
  EXPECT_EQ(Run().state, v1::JOB_STATE_PAUSED);
  EXPECT_EQ(store_->ReadCheckpoints("job")->back().update(), 2);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(services_.truth.updates_made, 3);  // nothing was trained again
  EXPECT_TRUE(services_.truth.violations.empty());
}

TEST_F(RunLoopTest, APauseThatIsNotReachedSurvivesACrashOfTheController) {
  ASSERT_TRUE(store_->InsertJob(job_).ok());
  Begin();
  Run([&] { return job_.updates_done == 1; });
  run_->Pause();
  run_.reset();  // before the Update that runs has ended
  job_ = store_->ReadJobs()->front();
  Begin();
  EXPECT_EQ(Run().state, v1::JOB_STATE_PAUSED);
  EXPECT_LT(job_.updates_done, 3);
}

TEST_F(RunLoopTest, OldRolloutsAreDeletedOnceACheckpointCoversThem) {
  store_.reset();
  store_ = *Store::Open({.folder = folder_, .durable = false, .segment_bytes = 1});  // a file each
  registry_ = *ActorRegistry::Open(*store_, clock_, absl::Hours(1));
  job_.config.mutable_grpo()->set_updates(6);
  job_.config.mutable_checkpoint()->set_every(2);
  job_.config.mutable_checkpoint()->set_keep_rollouts(1);
  Begin();
  EXPECT_EQ(Run().state, v1::JOB_STATE_SUCCEEDED);
  std::map<uint64_t, int> stored;
  for (const auto& [order, group] : run_->ledger().groups()) {
    for (const Sibling& sibling : group.siblings) stored[group.update] += sibling.stored;
  }
  for (uint64_t update = 1; update <= 5; ++update) EXPECT_EQ(stored[update], 0) << update;
  EXPECT_EQ(stored[6], 4);
  EXPECT_EQ(run_->ledger().Summary().consumed(), 12);
  run_.reset();
  auto ledger = *Ledger::Open(*store_, "job");
  EXPECT_EQ(ledger->Summary().rollouts_stored(), 4);
  EXPECT_TRUE(ledger->Read(ledger->GroupsOf(6)[1], 1).ok());
  EXPECT_EQ(ledger->Summary().consumed(), 12);
}

TEST_F(RunLoopTest, AnotherBuildIsTold) {
  v1::RegisterRequest request;
  request.set_role("rollout");
  request.set_name("rollout-0");
  request.set_address("fake");
  request.set_device("cpu");
  request.mutable_build()->set_release("0.2.0");
  request.mutable_build()->set_git_hash("abc");
  ASSERT_TRUE(registry_->Register(request).ok());
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  std::vector<std::string> told;
  const auto events = *store_->ReadEvents("job", 0);
  for (const v1::JobEvent& event : events) {
    if (event.message().rfind("WARNING", 0) == 0) told.push_back(event.message());
  }
  EXPECT_THAT(told, testing::ElementsAre(HasSubstr("rollout-0 runs 0.2.0 (abc, ), trainer-0 ")));
}

TEST_F(RunLoopTest, RolloutsAreNeverStalerThanAsked) {
  job_.config.mutable_grpo()->set_staleness(2);
  job_.config.mutable_grpo()->set_updates(6);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  bool stale = false;
  for (const auto& [order, group] : run_->ledger().groups()) {
    if (group.state != GroupState::kConsumed) continue;
    EXPECT_GE(group.version.number() + 1 + 2, group.update);
    stale = stale || group.version.number() + 1 < group.update;
  }
  EXPECT_TRUE(stale);  // it did work ahead
}

TEST_F(RunLoopTest, TheReferenceScoresWhenAKlTermIsUsed) {
  job_.config.mutable_grpo()->mutable_kl()->set_coefficient(0.1);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  v1::StoredRollout stored = *run_->ledger().Read(0, 0);
  EXPECT_EQ(stored.rollout().reference_logprobs_size(),
            stored.rollout().completion().token_ids_size());
  EXPECT_EQ(stored.prompt(0).role(), "user");
}

TEST_F(RunLoopTest, AnEvaluateJobTrainsNothing) {
  job_.config.clear_grpo();
  job_.config.mutable_evaluate();
  job_.config.mutable_data()->mutable_eval()->set_file("eval.jsonl");
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(recorder_.evals.size(), 1);
  EXPECT_EQ(services_.truth.updates_made, 0);
  EXPECT_TRUE(services_.truth.checkpoints.empty());
}

TEST_F(RunLoopTest, TextsAreLearnedWithoutRollouts) {
  job_.config.clear_grpo();
  job_.config.mutable_sft()->set_sequences(8);
  job_.config.mutable_sft()->set_passes(2);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job_.updates_done, 5);
  EXPECT_EQ(services_.loaded_job.sft().updates(), 5);
  EXPECT_EQ(run_->ledger().Summary().consumed(), 40);
  EXPECT_EQ(services_.publishes, 0);
}

std::vector<nlohmann::json> LinesOf(const std::string& path) {
  std::ifstream file(path);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

TEST_F(RunLoopTest, EveryDatasetIsScoredInEveryWay) {
  job_.config.mutable_data()->mutable_eval()->set_file("eval.jsonl");
  v1::EvalConfig& eval = *job_.config.mutable_eval();
  eval.set_samples(1);
  eval.set_threshold(1);
  eval.add_pass_at(1);
  eval.add_pass_at(3);
  eval.add_datasets()->set_name("more");
  v1::EvalSampling& hot = *eval.add_settings();
  hot.set_name("hot");
  hot.set_temperature(0.9);
  hot.set_samples(4);
  hot.set_max_completion_tokens(9);
  services_.on_generate = [](const v1::GenerateRequest& request) {
    if (request.group().attempt() < (uint64_t{1} << 32)) return absl::OkStatus();
    const bool is_hot = request.siblings_size() == 4;
    EXPECT_EQ(request.sampling().temperature(), is_hot ? 0.9 : 0);
    if (is_hot) {
      EXPECT_EQ(request.sampling().max_tokens(), 9u);
    }
    return absl::OkStatus();
  };
  services_.on_rollout = [](v1::Rollout& rollout) {  // two of the four are right, and the only one is
    if (rollout.group().attempt() < (uint64_t{1} << 32)) return;
    rollout.mutable_completion()->set_text(rollout.sibling() % 2 == 0 ? std::to_string(rollout.group().prompt()) : "x");
  };
  Begin({{"eval", &held_out_}, {"more", &more_}});
  EXPECT_EQ(Run().state, v1::JOB_STATE_SUCCEEDED);
  ASSERT_EQ(recorder_.evals.size(), 2);
  const v1::EvalResult& result = recorder_.evals[0];
  ASSERT_EQ(result.slices_size(), 4);
  EXPECT_EQ(result.slices(0).dataset(), "eval");
  EXPECT_EQ(result.slices(0).samples(), 1);
  EXPECT_EQ(result.slices(3).dataset(), "more");
  EXPECT_EQ(result.slices(3).setting(), "hot");
  EXPECT_EQ(result.slices(3).prompts(), 2);
  EXPECT_EQ(result.slices(3).samples(), 4);
  EXPECT_EQ(result.slices(3).accuracy(), 0.5);
  ASSERT_EQ(result.slices(3).pass_at_size(), 2);
  EXPECT_EQ(result.slices(3).pass_at(0).value(), 0.5);
  EXPECT_EQ(result.slices(3).pass_at(1).value(), 1) << "two wrong ones cannot fill three draws";
  EXPECT_EQ(result.slices(0).pass_at_size(), 1) << "one sample says nothing of pass@3";
  EXPECT_EQ(result.accuracy(), result.slices(0).accuracy());
}

TEST_F(RunLoopTest, AGenerateJobWritesEveryCompletionInOrder) {
  job_.output = folder_ + "/generated";
  job_.config.clear_rewards();
  job_.config.mutable_generate()->set_samples(2);
  job_.config.mutable_generate()->set_max_completion_tokens(5);
  job_.config.mutable_generate()->set_temperature(0.5);
  services_.on_generate = [](const v1::GenerateRequest& request) {
    EXPECT_EQ(request.sampling().max_tokens(), 5u);
    EXPECT_EQ(request.sampling().temperature(), 0.5);
    return absl::OkStatus();
  };
  // The controller ends in the middle, and goes on from what is stored.
  Begin();
  Run([&] { return run_->ledger().consumed() + run_->ledger().open().size() > 0 && services_.truth.siblings_generated > 6; });
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  const auto lines = LinesOf(job_.output + "/completions.jsonl");
  ASSERT_EQ(lines.size(), 40u);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["id"], i / 2 + 1);
    EXPECT_EQ(lines[i]["sibling"], i % 2);
    EXPECT_EQ(lines[i]["prompt_tokens"], (std::vector<uint64_t>{i / 2 + 1, 7}));
    EXPECT_EQ(lines[i]["tokens"].size(), lines[i]["logprobs"].size());
    EXPECT_EQ(lines[i]["finish_reason"], "stop");
    EXPECT_FALSE(lines[i].contains("reward"));
  }
  EXPECT_EQ(job_.updates_done, 0u);
  EXPECT_EQ(services_.truth.updates_made, 0u);
}

TEST_F(RunLoopTest, AGenerateJobMayHaveRewards) {
  job_.output = folder_ + "/judged";
  job_.config.mutable_generate()->set_samples(1);
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  const auto lines = LinesOf(job_.output + "/completions.jsonl");
  ASSERT_EQ(lines.size(), 20u) << "one that cannot be scored stays, and says why";
  EXPECT_EQ(lines[0]["rewards"].size(), 1u);
  EXPECT_EQ(lines[3]["error"], "numeric: took longer than 10 s");
  EXPECT_FALSE(lines[0].contains("sibling"));
}

TEST_F(RunLoopTest, AScoreJobWritesLogprobsAndTellsThePerplexity) {
  job_.output = folder_ + "/scored";
  job_.config.clear_rewards();
  job_.config.mutable_score();
  services_.on_generate = [](const v1::GenerateRequest&) {
    ADD_FAILURE() << "nothing is generated";
    return absl::OkStatus();
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  const auto lines = LinesOf(job_.output + "/scores.jsonl");
  ASSERT_EQ(lines.size(), 20u);
  EXPECT_EQ(lines[4]["tokens"], (std::vector<uint64_t>{5, 7, 9, 2}));
  EXPECT_TRUE(lines[4]["logprobs"][1].is_null()) << "the prompt";
  EXPECT_TRUE(lines[4]["logprobs"][2].is_number());
  ASSERT_EQ(recorder_.evals.size(), 1u);
  const v1::EvalSlice& slice = recorder_.evals[0].slices(0);
  EXPECT_EQ(slice.tokens(), 40u);
  EXPECT_NEAR(slice.perplexity(), std::exp(slice.loss()), 1e-12);
}

TEST_F(RunLoopTest, TextsAreScoredManyInACallAndAWrongOneAlone) {
  job_.output = folder_ + "/scored_together";
  job_.config.clear_rewards();
  job_.config.mutable_score();
  int most = 0;
  services_.on_reference = [&](const v1::ScoreTokensRequest& request) -> absl::Status {
    most = std::max(most, request.sequences_size());
    for (const v1::TokenSequence& sequence : request.sequences()) {
      if (sequence.token_ids(0) == 8) return absl::InvalidArgumentError("sequence 0: 4 tokens, want 1 to 3");
    }
    return absl::OkStatus();
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  EXPECT_EQ(most, 20);
  EXPECT_EQ(LinesOf(job_.output + "/scores.jsonl").size(), 19u) << "prompt 7 is dropped, the others are not";
  EXPECT_THAT(DropReasons(), testing::ElementsAre("score by the reference: sequence 0: 4 tokens, want 1 to 3"));
}

v1::SftConfig Sft() {
  v1::SftConfig sft;
  sft.set_updates(9);
  sft.set_sequences(2);
  return sft;
}

TEST_F(RunLoopTest, TheHeldOutLossIsOfEveryAnswerAndStopsTheJobWhenItStays) {
  job_.config.clear_rewards();
  *job_.config.mutable_sft() = Sft();
  job_.config.mutable_data()->mutable_eval()->set_file("eval.jsonl");
  job_.config.mutable_eval()->set_every(1);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job_.updates_done, 9u) << "without patience it goes on";
  ASSERT_EQ(recorder_.evals.size(), 10u);
  EXPECT_NEAR(recorder_.evals[1].slices(0).loss(), 0.5, 1e-6);
  EXPECT_EQ(recorder_.evals[1].slices(0).tokens(), 8u) << "two of each of four answers";
  EXPECT_EQ(recorder_.evals[1].prompts(), 4u);
}

TEST_F(RunLoopTest, HeldOutPairsAreMeasuredByTheTrainersLoss) {
  job_.config.clear_rewards();
  job_.config.mutable_reward_model()->set_updates(2);
  job_.config.mutable_reward_model()->set_pairs(2);
  job_.config.mutable_data()->mutable_eval()->set_file("eval.jsonl");
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  ASSERT_EQ(recorder_.evals.size(), 2u);
  const v1::EvalSlice& slice = recorder_.evals[1].slices(0);
  EXPECT_NEAR(slice.loss(), 1.0 / 3, 1e-6);
  EXPECT_NEAR(recorder_.evals[1].accuracy(), 1.0 / 3, 1e-6);
  EXPECT_NEAR(slice.standard_error(), std::sqrt(2.0 / 9 / 4), 1e-6) << "of four lines";
  EXPECT_FALSE(slice.has_perplexity());
  ASSERT_EQ(slice.parts_size(), 1);
  EXPECT_EQ(slice.parts(0).name(), "score_margin");
}

TEST_F(RunLoopTest, PatienceEndsAJobWhoseLossStays) {
  job_.config.clear_rewards();
  *job_.config.mutable_sft() = Sft();
  job_.config.mutable_data()->mutable_eval()->set_file("eval.jsonl");
  job_.config.mutable_eval()->set_every(1);
  job_.config.mutable_eval()->set_patience(2);
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job_.updates_done, 4u) << "1, 1/2, 1/3, 1/3, 1/3";
  EXPECT_EQ(store_->ReadCheckpoints("job")->size(), 1u);
  EXPECT_EQ(services_.truth.checkpoints.count("/out/model"), 1u);
}

TEST_F(RunLoopTest, ACurriculumSkipsWhatIsMasteredForAWhile) {
  v1::GrpoConfig& grpo = *job_.config.mutable_grpo();
  grpo.set_updates(30);
  grpo.set_prompts(3);
  grpo.mutable_curriculum()->set_max_pass_rate(0.9);
  grpo.mutable_curriculum()->set_threshold(1);
  grpo.mutable_curriculum()->set_passes(2);
  train_ = std::make_unique<fakes::FakePrompts>(3);
  services_.on_rollout = [](v1::Rollout& rollout) {  // prompt 1 is mastered, the others never are
    const uint64_t prompt = rollout.group().prompt();
    const bool right = prompt == 1 || rollout.sibling() == 0;
    rollout.mutable_completion()->set_text(right ? std::to_string(prompt) : "wrong");
  };
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  std::vector<uint64_t> tried, skipped;  // data epochs of prompt 1
  for (const auto& [order, group] : run_->ledger().groups()) {
    if (group.id.prompt() != 1) continue;
    (group.state == GroupState::kConsumed ? tried : skipped).push_back(group.id.data_epoch());
    if (group.state == GroupState::kConsumed) continue;
    EXPECT_THAT(group.reason, HasSubstr("curriculum: too easy, a share of 1 passed"));
  }
  ASSERT_GE(tried.size(), 2u);
  ASSERT_GE(skipped.size(), 2u);
  EXPECT_EQ(tried[1], tried[0] + 3) << "skipped in two passes, then tried again";
}

TEST_F(RunLoopTest, ATeacherTakesThePlaceOfRewards) {
  job_.config.clear_rewards();
  v1::GrpoConfig distillation = job_.config.grpo();
  distillation.mutable_kl()->set_coefficient(1);
  distillation.mutable_kl()->set_reference("/teacher");
  distillation.mutable_kl()->set_place(v1::KL_PLACE_REWARD);
  *job_.config.mutable_on_policy_distillation() = distillation;
  services_.on_score = [](const v1::ScoreRewardsRequest&) {
    ADD_FAILURE() << "nothing is scored by rewards";
    return absl::OkStatus();
  };
  services_.on_load_reference = [](const v1::LoadModelRequest& request) {
    EXPECT_EQ(request.model().path(), "/teacher");
    EXPECT_EQ(request.weights_path(), "/teacher");
  };
  int sequences = 0;
  services_.on_update = [&](const v1::UpdateRequest& request) {
    for (const v1::TrainingSequence& sequence : request.sequences()) {
      EXPECT_EQ(sequence.reference_logprobs_size(), sequence.behaviour_logprobs_size());
      ++sequences;
    }
    return absl::OkStatus();
  };
  EXPECT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(sequences, 12);
}

// Distillation: each batch has the teacher's likeliest tokens at its targets, and at nothing else.
TEST_F(RunLoopTest, ATeacherIsAskedBeforeEachUpdate) {
  job_.config.clear_rewards();
  v1::DistillConfig& distill = *job_.config.mutable_distill();
  distill.set_teacher("/teacher");
  distill.set_updates(2);
  distill.set_passes(1);
  distill.set_sequences(3);
  distill.set_top_k(2);
  distill.set_temperature(1);
  services_.on_load_reference = [](const v1::LoadModelRequest& request) {
    EXPECT_EQ(request.model().path(), "/teacher");
    EXPECT_EQ(request.weights_path(), "/teacher");
  };
  int asked = 0, updates = 0;
  services_.on_reference = [&](const v1::ScoreTokensRequest& request) {
    EXPECT_EQ(request.top_k(), 2u);
    EXPECT_EQ(request.sequences(0).prefix(), 2u) << "the prompt is not asked for";
    return ++asked == 1 ? absl::UnavailableError("away") : absl::OkStatus();
  };
  services_.on_update = [&](const v1::UpdateRequest& request) {
    ++updates;
    EXPECT_EQ(request.sequences_size(), 3);
    for (const v1::TrainingSequence& sequence : request.sequences()) {  // targets 9 and 2 of FakePrompts
      EXPECT_THAT(sequence.teacher_ids(), testing::ElementsAre(9, 10, 2, 3));
      EXPECT_THAT(sequence.teacher_logprobs(), testing::ElementsAre(-1, -2, -1, -2));
    }
    return absl::OkStatus();
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  EXPECT_EQ(updates, 2);
  EXPECT_EQ(asked, 3) << "once more after it was away";
}

TEST_F(RunLoopTest, ATeacherWithAnotherVocabularyEndsTheJob) {
  job_.config.clear_rewards();
  v1::DistillConfig& distill = *job_.config.mutable_distill();
  distill.set_teacher("/teacher");
  distill.set_updates(2);
  distill.set_sequences(3);
  distill.set_temperature(1);
  services_.on_reference = [](const v1::ScoreTokensRequest&) {
    return absl::InvalidArgumentError("token id 40 is outside the vocabulary of 32");
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_FAILED);
  EXPECT_EQ(outcome.message, "reference-0: the teacher cannot score update 1: token id 40 is outside the vocabulary of 32");
}

TEST_F(RunLoopTest, CallsToTheRewardModelsOfALostReferenceAreMadeAgain) {
  job_.config.add_rewards()->mutable_model()->set_path("/judge");
  services_.on_load_reference = [](const v1::LoadModelRequest& request) {
    EXPECT_FALSE(request.has_model()) << "no policy is wanted there";
    EXPECT_EQ(request.reward_models(0).path(), "/judge");
  };
  std::vector<std::string> scorers;
  services_.on_score = [&](const v1::ScoreRewardsRequest& request) {
    EXPECT_EQ(request.model_scorers_size(), 1);
    scorers.push_back(request.model_scorers(0));
    return absl::OkStatus();
  };
  Begin();
  Run([&] { return !scorers.empty(); });
  Register("reference");  // comes back as another incarnation, at the same place
  const size_t before = scorers.size();
  EXPECT_EQ(Run().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_GT(scorers.size(), before);
}

// Episodes of several turns: an environment answers between them.
class EpisodeTest : public RunLoopTest {
 protected:
  void SetUp() override {
    RunLoopTest::SetUp();
    v1::EnvironmentConfig& environment = *job_.config.mutable_environment();
    environment.mutable_remote()->set_address("game:1");
    environment.set_max_turns(3);
    environment.set_timeout_seconds(600);
    environment.set_step_timeout_seconds(60);
    environment.set_concurrency(64);
    job_.config.mutable_rewards()->Clear();
    v1::RewardConfig& reward = *job_.config.add_rewards();
    reward.mutable_environment();
    reward.set_weight(1);
    job_.config.mutable_grpo()->set_max_completion_tokens(5);
    services_.on_step = [](const v1::EnvironmentStepRequest& step) { return Shown("seen", 0.5, step.turn() == 1); };
    services_.on_update = [this](const v1::UpdateRequest& request) {
      trained_.insert(trained_.end(), request.sequences().begin(), request.sequences().end());
      return absl::OkStatus();
    };
  }

  static v1::EnvironmentStepReply Shown(const std::string& text, double reward = 0, bool done = false) {
    v1::EnvironmentStepReply reply;
    v1::Message* message = reply.add_messages();
    message->set_role("user");
    message->set_content(text);
    reply.set_reward(reward);
    reply.set_done(done);
    return reply;
  }

  // The first stored rollout of the job.
  v1::StoredRollout First() { return *run_->ledger().Read(0, 0); }
  v1::Rollout FirstRollout() { return First().rollout(); }

  std::vector<v1::TrainingSequence> trained_;
};

TEST_F(EpisodeTest, ATurnFollowsWhatTheEnvironmentShowed) {
  std::vector<v1::GenerateRequest> asked;
  services_.on_generate = [&](const v1::GenerateRequest& request) {
    if (asked.empty() || asked.front().group().prompt() == request.group().prompt()) asked.push_back(request);
    return absl::OkStatus();
  };
  Outcome outcome = RunAll();
  ASSERT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  const v1::Rollout rollout = FirstRollout();
  ASSERT_EQ(rollout.turns_size(), 2);
  const v1::Completion& completion = rollout.completion();
  const auto first = static_cast<int>(rollout.turns(0).tokens()), second = static_cast<int>(rollout.turns(1).tokens());
  // Turn, what was shown (901, its length, 902), turn; nothing behind the last one.
  ASSERT_EQ(completion.token_ids_size(), first + 3 + second);
  EXPECT_EQ(completion.token_ids(first), 901u);
  EXPECT_EQ(completion.token_ids(first + 1), 4u);
  EXPECT_EQ(completion.token_ids(first + 2), 902u);
  EXPECT_EQ(completion.behaviour_logprobs_size(), first + second) << "what was shown has no log-prob";
  EXPECT_EQ(completion.finish_reason(), v1::FINISH_REASON_DONE);
  EXPECT_EQ(completion.text(), rollout.turns(1).text());
  EXPECT_EQ(rollout.turns(0).observation(0).content(), "seen");
  EXPECT_EQ(rollout.turns(0).reward(), 0.5);
  EXPECT_EQ(completion.versions_size(), 1) << "one policy drew both turns";
  EXPECT_EQ(completion.versions(0).tokens(), static_cast<uint32_t>(first + second));
  EXPECT_EQ(rollout.reward().reward(), 1);
  EXPECT_EQ(rollout.reward().parts(0).name(), "environment");
  // What is trained on: observations are no targets, and each turn has its reward.
  const v1::TrainingSequence& sequence = trained_.front();
  std::string mask(static_cast<size_t>(rollout.prompt_token_ids_size()), '\0');
  mask += std::string(static_cast<size_t>(first), '\1') + std::string(3, '\0') + std::string(static_cast<size_t>(second), '\1');
  EXPECT_EQ(sequence.loss_mask(), mask);
  EXPECT_EQ(sequence.behaviour_logprobs_size(), first + second);
  EXPECT_THAT(sequence.turn_rewards(), testing::ElementsAre(0.5, 0.5));
  EXPECT_FALSE(sequence.truncated());
  // Each turn has its own key, and the tokens of all before it as its prompt.
  std::map<uint32_t, int> turns;
  for (const v1::GenerateRequest& request : asked) {
    ++turns[request.turn()];
    ASSERT_EQ(request.siblings_size(), 1);
    EXPECT_EQ(request.sampling().max_tokens(), 5u);
    EXPECT_GE(request.prompt_token_ids_size(), request.turn() == 0 ? 2 : 2 + 1 + 3);
  }
  EXPECT_EQ(turns.size(), 2u);
  EXPECT_EQ(services_.environments, (std::vector<std::string>{"game:1"}));
  EXPECT_TRUE(services_.closed.empty()) << "episodes that end by themselves need no end";
}

TEST_F(EpisodeTest, TheEnvironmentMayBeginAndBringTools) {
  services_.on_reset = [](const v1::EnvironmentResetRequest& request) {
    EXPECT_EQ(request.prompt(0).content(), "prompt " + request.answer());
    v1::EnvironmentResetReply reply;
    v1::Message* message = reply.add_messages();
    message->set_role("user");
    message->set_content("go");
    reply.add_tools("{\"a\":1}");
    return absl::StatusOr<v1::EnvironmentResetReply>(reply);
  };
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  const v1::StoredRollout stored = First();
  ASSERT_EQ(stored.prompt_size(), 2);
  EXPECT_EQ(stored.prompt(1).content(), "go");
  EXPECT_EQ(stored.rollout().prompt_token_ids(0), 900u) << "the whole conversation is encoded anew";
  EXPECT_EQ(*stored.rollout().prompt_token_ids().rbegin(), 7u) << "the tools too";
}

TEST_F(EpisodeTest, SiblingsHaveOneSeedAndGroupsDiffer) {
  std::map<uint64_t, std::set<uint32_t>> siblings;  // by seed
  services_.on_reset = [&](const v1::EnvironmentResetRequest& request) {
    siblings[request.seed()].insert(request.sibling());
    return absl::StatusOr<v1::EnvironmentResetReply>(v1::EnvironmentResetReply());
  };
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_GE(siblings.size(), 6u);
  for (const auto& [seed, who] : siblings) EXPECT_EQ(who, (std::set<uint32_t>{0, 1}));
}

TEST_F(EpisodeTest, EachLimitEndsTheEpisodeWithItsName) {
  services_.on_step = [](const v1::EnvironmentStepRequest&) { return Shown("more"); };
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(FirstRollout().completion().finish_reason(), v1::FINISH_REASON_MAX_TURNS);
  EXPECT_EQ(FirstRollout().turns_size(), 3);
  EXPECT_TRUE(trained_.front().truncated());
  EXPECT_FALSE(services_.closed.empty()) << "the environment is told";
}

TEST_F(EpisodeTest, WhatHasNoRoomIsNotShown) {
  services_.on_step = [](const v1::EnvironmentStepRequest&) { return Shown("more"); };
  job_.config.mutable_environment()->set_max_tokens(5);
  services_.on_generate = [](const v1::GenerateRequest& request) {
    EXPECT_LE(static_cast<uint32_t>(request.prompt_token_ids_size()) - 2 + request.sampling().max_tokens(), 5u);
    EXPECT_GE(request.sampling().max_tokens(), 1u);
    return absl::OkStatus();
  };
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  bool cut = false;
  for (const v1::TrainingSequence& sequence : trained_) {
    EXPECT_EQ(sequence.loss_mask().back(), '\1') << "nothing is shown after the last turn";
    cut = cut || sequence.truncated();
  }
  EXPECT_TRUE(cut);
  EXPECT_EQ(FirstRollout().completion().finish_reason(), v1::FINISH_REASON_MAX_TOKENS);
}

TEST_F(EpisodeTest, ATurnThatIsCutEndsTheEpisode) {
  services_.on_rollout = [](v1::Rollout& rollout) { rollout.mutable_completion()->set_finish_reason(v1::FINISH_REASON_LENGTH); };
  std::vector<bool> truncated;
  services_.on_step = [&](const v1::EnvironmentStepRequest& step) {
    truncated.push_back(step.truncated());
    return Shown("more", 0.25);
  };
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(FirstRollout().turns_size(), 1);
  EXPECT_EQ(FirstRollout().completion().finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(FirstRollout().reward().reward(), 0.25) << "the environment may reward what there is";
  EXPECT_TRUE(truncated.front());
}

TEST_F(EpisodeTest, AnEpisodeEndsWhenItsTimeIsOver) {
  services_.on_step = [this](const v1::EnvironmentStepRequest&) {
    clock_.AdvanceTo(clock_.Now() + absl::Seconds(400));
    return Shown("slow");
  };
  job_.config.mutable_grpo()->set_prompts(1);
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(FirstRollout().completion().finish_reason(), v1::FINISH_REASON_TIMEOUT);
  EXPECT_GE(FirstRollout().turns_size(), 1);
  EXPECT_EQ(trained_.front().loss_mask().back(), '\1');
}

// Each fault is tried again from the start, then the rollout is dropped with its name; one that is left alone drops the group.
TEST_F(EpisodeTest, AnEnvironmentThatFailsCostsItsOwnRollout) {
  struct Fault {
    std::function<absl::StatusOr<v1::EnvironmentStepReply>()> answer;
    std::string reason;
  };
  auto with = [](auto change) {
    v1::EnvironmentStepReply reply = Shown("x");
    change(reply);
    return absl::StatusOr<v1::EnvironmentStepReply>(reply);
  };
  const std::vector<Fault> faults = {
      {[] { return absl::DeadlineExceededError("no answer in 60 s"); }, "environment: step 0: no answer in 60 s"},
      {[] { return absl::UnavailableError("connection refused"); }, "environment: step 0: connection refused"},
      {[] { return absl::InternalError("ValueError: bad move"); }, "environment: step 0: ValueError: bad move"},
      {[&] { return with([](auto& reply) { reply.set_reward(std::nan("")); }); },
       "environment: step 0: the environment gave the reward nan, want a finite number"},
      {[&] { return with([](auto& reply) { reply.clear_messages(); }); },
       "environment: step 0: the environment gave no messages, and the episode is not done"},
      {[&] { return with([](auto& reply) { reply.mutable_messages(0)->set_role("assistant"); }); },
       "environment: step 0: the environment gave a message of the role 'assistant', want user, tool or system"}};
  // One fault for each of some prompts, in their first sibling. (Prompts 3, 10, 17 have one that nobody can score, 5 and 16
  // have none that can.)
  const std::vector<std::string> prompts = {"0", "1", "2", "4", "6", "7"};
  std::map<std::string, int> tries;
  services_.on_step = [&](const v1::EnvironmentStepRequest& step) -> absl::StatusOr<v1::EnvironmentStepReply> {
    const v1::EnvironmentResetRequest& begun = services_.episodes[step.episode()];
    auto prompt = std::find(prompts.begin(), prompts.end(), begun.answer());
    if (prompt == prompts.end() || begun.sibling() > 0) return Shown("seen", begun.sibling(), true);
    ++tries[*prompt];
    return faults[static_cast<size_t>(prompt - prompts.begin())].answer();
  };
  job_.config.mutable_grpo()->set_group_size(3);
  job_.config.mutable_grpo()->clear_updates();
  Outcome outcome = RunAll();
  ASSERT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  EXPECT_EQ(trained_.size(), 18u * 3 - 3 - faults.size());
  for (size_t i = 0; i < faults.size(); ++i) {
    EXPECT_EQ(tries[prompts[i]], 2) << "failure.max_attempts; " << faults[i].reason;
    uint64_t prompt = 0;
    ASSERT_TRUE(absl::SimpleAtoi(prompts[i], &prompt));
    for (const auto& [order, group] : run_->ledger().groups()) {
      if (group.id.prompt() != prompt) continue;
      EXPECT_EQ(run_->ledger().Read(order, 0)->rollout().reward().error(), faults[i].reason);
      EXPECT_EQ(group.state, GroupState::kConsumed) << "the other siblings are trained on";
    }
  }
}

TEST_F(EpisodeTest, GroupsWithoutAnyEpisodeAreDroppedWithTheReason) {
  services_.on_step = [this](const v1::EnvironmentStepRequest& step) -> absl::StatusOr<v1::EnvironmentStepReply> {
    if (services_.episodes[step.episode()].answer() == "2") return absl::InternalError("broken");
    return Shown("seen", 1, true);
  };
  job_.config.mutable_grpo()->clear_updates();
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(DropReasons(), testing::Contains("environment: step 0: broken"));
}

TEST_F(EpisodeTest, AnEnvironmentThatNeverWorksEndsTheJob) {
  services_.on_reset = [](const v1::EnvironmentResetRequest&) -> absl::StatusOr<v1::EnvironmentResetReply> {
    return absl::UnavailableError("nobody listens at game:1");
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_FAILED);
  EXPECT_THAT(outcome.message, HasSubstr("every prompt of a whole pass over the data was dropped; the last: environment: reset: "
                                         "nobody listens at game:1"));
}

TEST_F(EpisodeTest, SettingsThatTheEnvironmentRefusesEndTheJob) {
  services_.on_reset = [](const v1::EnvironmentResetRequest&) -> absl::StatusOr<v1::EnvironmentResetReply> {
    return absl::InvalidArgumentError("want `tools`");
  };
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_FAILED);
  EXPECT_EQ(outcome.message, "environment: want `tools`");
}

// A restart keeps what failed, and plays no finished episode again.
TEST_F(EpisodeTest, ARestartGoesOnWithStoredEpisodes) {
  int steps = 0;
  services_.on_step = [&](const v1::EnvironmentStepRequest& step) -> absl::StatusOr<v1::EnvironmentStepReply> {
    ++steps;
    if (services_.episodes[step.episode()].sibling() == 0) return absl::InternalError("broken");
    return Shown("seen", 1, true);
  };
  job_.config.mutable_grpo()->set_group_size(3);
  job_.config.mutable_grpo()->set_updates(1);
  bool scored = false;
  services_.on_score = [&](const v1::ScoreRewardsRequest&) {
    scored = true;
    return absl::UnavailableError("later");
  };
  Begin();
  Run([&] { return scored; });
  const int before = steps;
  services_.on_score = nullptr;
  Begin();
  EXPECT_EQ(Run().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(steps, before) << "everything was played before";
  EXPECT_EQ(trained_.size(), 4u) << "two of three siblings in two groups";
}

TEST_F(EpisodeTest, TheReferenceScoresWhatThePolicyWrote) {
  job_.config.mutable_grpo()->mutable_kl()->set_coefficient(0.1);
  services_.on_step = [this](const v1::EnvironmentStepRequest& step) -> absl::StatusOr<v1::EnvironmentStepReply> {
    const v1::EnvironmentResetRequest& begun = services_.episodes[step.episode()];
    if (begun.sibling() == 0) return absl::InternalError("broken");
    return Shown("seen", begun.sibling(), step.turn() == 1);
  };
  job_.config.mutable_grpo()->set_group_size(3);
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  ASSERT_EQ(trained_.size(), 12u);
  for (const v1::TrainingSequence& sequence : trained_) {
    EXPECT_EQ(sequence.reference_logprobs_size(), sequence.behaviour_logprobs_size());
    EXPECT_LT(sequence.reference_logprobs_size(), sequence.token_ids_size() - 2) << "observations have none";
  }
}

TEST_F(EpisodeTest, ToolsRunInTheRewardServices) {
  job_.config.mutable_environment()->mutable_tools()->mutable_calculator();
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(services_.environments, (std::vector<std::string>{"fake"})) << "the address of reward-0";
}

TEST_F(EpisodeTest, NoMoreCallsThanAreAllowedAreUnderWay) {
  job_.config.mutable_environment()->set_concurrency(2);
  size_t most = 0, open = 0;
  services_.on_reset = [&](const v1::EnvironmentResetRequest&) {
    most = std::max(most, ++open);
    services_.Later([&open] { --open; });
    return absl::StatusOr<v1::EnvironmentResetReply>(v1::EnvironmentResetReply());
  };
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  EXPECT_LE(most, 2u);
}

TEST_F(EpisodeTest, HeldOutPromptsArePlayedToo) {
  job_.config.mutable_data()->mutable_eval()->set_file("eval.jsonl");
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  ASSERT_EQ(recorder_.evals.size(), 2u);
  EXPECT_EQ(recorder_.evals[1].accuracy(), 0.75) << "two turns of 0.5; nobody can score the last prompt";
}

TEST_F(EpisodeTest, RulesJudgeTheLastTurn) {
  job_.config.add_rewards()->mutable_numeric();
  std::vector<v1::RewardItem> items;
  services_.on_score = [&](const v1::ScoreRewardsRequest& request) {
    items.insert(items.end(), request.items().begin(), request.items().end());
    return absl::OkStatus();
  };
  ASSERT_EQ(RunAll().state, v1::JOB_STATE_SUCCEEDED);
  const v1::RewardItem& item = items.front();
  ASSERT_EQ(item.prompt_size(), 3);
  EXPECT_EQ(item.prompt(1).role(), "assistant");
  EXPECT_EQ(item.prompt(2).content(), "seen");
  EXPECT_EQ(item.environment_reward(), 1);
  EXPECT_EQ(item.completion().token_ids_size(), item.completion().behaviour_logprobs_size());
}

}  // namespace
}  // namespace rein::services
