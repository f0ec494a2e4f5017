// Episodes: an environment answers the policy between its turns.

#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/numbers.h"

#include "tests/unit/services/controller/run_loop_fixture.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

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
