#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/services/controller/run_loop_fixture.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

TEST_F(RunLoopTest, AJobRunsToItsEnd) {
  ASSERT_TRUE(store_->InsertJob(job_).ok());
  Outcome outcome = RunAll();
  EXPECT_EQ(outcome.state, v1::JOB_STATE_SUCCEEDED) << outcome.message;
  EXPECT_EQ(job_.updates_done, 3);
  EXPECT_EQ(job_.digest, services_.trainer_service.weights().digest);
  ASSERT_EQ(recorder_.updates.size(), 3);
  EXPECT_EQ(recorder_.updates[2].update(), 3);
  EXPECT_EQ(store_->ReadJobs()->front().figures.SerializeAsString(), ListedFigures(recorder_.updates[2]).SerializeAsString());
  EXPECT_GT(job_.figures.metrics_size(), 0) << "for lists of jobs";
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
          "of train.jsonl has 2 tokens, at most 1 are allowed (data.drop_long_prompts: true leaves such prompts out, data.truncate "
          "cuts them)"));
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
  const v1::Rollout kept = ledger->Read(ledger->GroupsOf(6)[0], 0)->rollout();
  EXPECT_GT(kept.policy_logprobs_size(), 0) << "the figures of those stay";
  EXPECT_EQ(kept.policy_logprobs_size(), kept.completion().behaviour_logprobs_size());
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

}  // namespace
}  // namespace rein::services
