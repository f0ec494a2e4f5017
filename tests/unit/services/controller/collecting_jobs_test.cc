// Jobs that generate, score or evaluate without training, and held-out data of those that train.

#include <algorithm>
#include <cmath>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/services/controller/run_loop_fixture.h"

namespace rein::services {
namespace {

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

}  // namespace
}  // namespace rein::services
