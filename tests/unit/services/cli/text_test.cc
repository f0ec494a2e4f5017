#include <cmath>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/cli/describe_text.h"
#include "services/cli/exit_code.h"
#include "services/cli/output.h"
#include "services/cli/text_table.h"
#include "services/cli/watch_view.h"

namespace rein::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(TextTableTest, AlignsColumnsByWhatIsSeen) {
  EXPECT_EQ(Table({{"NAME", "REWARD", "AGE"}, {"digits", "–", "6m"}, {"x", "0.5", ""}}),
            "NAME    REWARD  AGE\ndigits  –       6m\nx       0.5\n");
}

TEST(TextTableTest, AgesAndFigures) {
  EXPECT_EQ(Age(absl::Seconds(8)), "8s");
  EXPECT_EQ(Age(absl::Seconds(190)), "3m10s");
  EXPECT_EQ(Age(absl::Seconds(180)), "3m");
  EXPECT_EQ(Age(absl::Minutes(62)), "1h02m");
  EXPECT_EQ(Age(absl::Hours(51)), "2d3h");
  EXPECT_EQ(Figure(0.6123), "0.612");
  EXPECT_EQ(Figure(41234), "41.2k");
  EXPECT_EQ(Figure(3.21e6), "3.21M");
  EXPECT_EQ(Figure(2e-6), "2e-06");
  EXPECT_EQ(Figure(NAN), "–");
}

TEST(TextTableTest, BarsAndSparklines) {
  EXPECT_EQ(Bar(0.5, 4, true), "██··");
  EXPECT_EQ(Bar(0.53, 4, false), "██▏");
  EXPECT_EQ(Bar(2, 2, true), "██");
  EXPECT_EQ(Sparkline({0, 0.5, 1}), "▁▄█");
  EXPECT_EQ(Sparkline({3, 3}), "▁▁");
}

TEST(ExitCodeTest, FollowsTheTable) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), 4);
  EXPECT_EQ(ExitCodeOf(absl::AlreadyExistsError("")), 5);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 7);
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_SUCCEEDED), 0);
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_FAILED), 1);
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_CANCELLED), 8);
}

v1::JobEvent UpdateEvent(uint64_t update, double reward) {
  v1::JobEvent event;
  v1::UpdateRecord& record = *event.mutable_update();
  record.set_update(update);
  record.set_max_updates(200);
  for (const auto& [name, value] : {std::pair<std::string, double>{"reward", reward},
                                    {"reward_std", 0.31},
                                    {"reward/numeric", 0.58},
                                    {"zero_signal_ratio", 0.12},
                                    {"completion_tokens", 11.8},
                                    {"truncated_ratio", 0.004},
                                    {"entropy", 0.84},
                                    {"grad_norm", 0.9},
                                    {"mismatch_max", 0},
                                    {"lag", 1},
                                    {"seconds", 2.0},
                                    {"generate_seconds", 1.0},
                                    {"train_seconds", 0.8},
                                    {"sync_seconds", 0.01},
                                    {"tokens_per_second", 41200}}) {
    v1::Metric* metric = record.add_metrics();
    metric->set_name(name);
    metric->set_value(value);
  }
  return event;
}

v1::Job RunningJob() {
  v1::Job job;
  job.set_name("products");
  job.set_kind("grpo");
  job.set_state(v1::JOB_STATE_RUNNING);
  return job;
}

TEST(WatchViewTest, OneLineForEachUpdateInAFile) {
  WatchView view(RunningJob());
  EXPECT_EQ(
      view.Take(UpdateEvent(128, 0.612)),
      "update 128/200  reward 0.612±0.31  entropy 0.84  length 11.8  cut 0.4 %  grad 0.9  lag 1"
      "  tok/s 41.2k  generate 1s  train 0.8s  sync 0.01s  eta 2m24s");
}

TEST(WatchViewTest, LiveLines) {
  WatchView view(RunningJob());
  view.Take(UpdateEvent(1, 0.2));
  view.Take(UpdateEvent(2, 0.4));
  EXPECT_THAT(
      view.Lines(200),
      ElementsAre("products  GRPO  RUNNING  update 2/200 ▎······················· 1 %  eta "
                  "6m36s   policy 2   lag 1.0",
                  "reward 0.4 ▁█  numeric 0.58   zero-signal groups 12 %",
                  "length 11.8 (cut 0.4 %)   entropy 0.84   grad 0.9   mismatch 0 (exact)",
                  "update 2.00 s:  generate ██████ 1.00  train ████▊ 0.80  sync  0.01  idle "
                  "0.19     41.2k tok/s"));
  for (const std::string& line : view.Lines(40)) EXPECT_LE(Width(line), 40);
}

TEST(WatchViewTest, UpdatesTrainedAgainReplaceTheFirst) {
  WatchView view(RunningJob());
  for (uint64_t update : {1, 2, 3, 2, 3}) view.Take(UpdateEvent(update, update));
  EXPECT_THAT(view.Lines(200)[1], HasSubstr("reward 3 ▁▄█  "));
}

TEST(WatchViewTest, OtherEvents) {
  WatchView view(RunningJob());
  v1::JobEvent event;
  event.mutable_eval()->set_update(10);
  event.mutable_eval()->set_accuracy(0.93);
  event.mutable_eval()->set_standard_error(0.021);
  event.mutable_eval()->set_prompts(400);
  EXPECT_EQ(view.Take(event), "held-out at update 10: accuracy 0.930 ± 0.021 (400 prompts)");
  event.mutable_checkpoint()->set_number(2);
  event.mutable_checkpoint()->set_update(20);
  EXPECT_EQ(view.Take(event), "checkpoint 2 at update 20");
  event.set_state(v1::JOB_STATE_RUNNING);
  EXPECT_EQ(view.Take(event), "");  // nothing new
  event.set_detail("waits for a trainer");
  EXPECT_EQ(view.Take(event), "RUNNING  waits for a trainer");
}

TEST(DescribeTextTest, JobsTable) {
  v1::ListJobsReply jobs;
  v1::Job& job = *jobs.add_jobs();
  job = RunningJob();
  job.set_update(128);
  job.set_max_updates(200);
  job.set_submitted_at(40);
  job.set_group("second");
  v1::Job& waits = *jobs.add_jobs();
  waits = RunningJob();
  waits.set_name("sums");
  waits.set_state(v1::JOB_STATE_QUEUED);
  waits.set_message("waits for a free group: second runs products");
  v1::Metric* metric = job.add_metrics();
  metric->set_name("reward");
  metric->set_value(0.612);
  EXPECT_EQ(JobsTable(jobs, absl::FromUnixSeconds(400)),
            "NAME      KIND  STATE    GROUP   UPDATE   REWARD  AGE    MESSAGE\n"
            "products  grpo  RUNNING  second  128/200  0.612   6m\n"
            "sums      grpo  QUEUED   –       0/0      –       6m40s  waits for a free group: second runs products\n");
}

TEST(DescribeTextTest, RanksAreShownWhereATrainerHasSeveral) {
  v1::ListActorsReply actors;
  for (uint32_t rank : {0, 1}) {
    v1::Actor& actor = *actors.add_actors();
    actor.set_role("trainer");
    actor.set_name(absl::StrCat("trainer-", rank));
    actor.set_rank(rank);
    if (rank == 0) actor.add_peers("127.0.0.1:2");
  }
  actors.add_actors()->set_role("rollout");
  const std::string table = ActorsTable(actors);
  EXPECT_THAT(table, HasSubstr("\ntrainer (rank 0)  trainer-0"));
  EXPECT_THAT(table, HasSubstr("\ntrainer (rank 1)  trainer-1"));
  EXPECT_THAT(table, Not(HasSubstr("rollout (rank")));
}

TEST(DescribeTextTest, TellsWhatAJobTakesOnDisk) {
  v1::Job job;
  EXPECT_THAT(DescribeJob(job, {}, {}, absl::UnixEpoch()), Not(HasSubstr("disk ")));
  job.set_disk_bytes(12'000'000);
  job.add_checkpoints()->set_bytes(4'000'000);
  job.add_checkpoints()->set_bytes(5'000'000);
  const std::string text = DescribeJob(job, {}, {}, absl::UnixEpoch());
  EXPECT_THAT(text, HasSubstr("\ndisk       12MB, of it 9.0MB in checkpoints\n"));
}

TEST(DescribeTextTest, RolloutsAreReadable) {
  v1::ListRolloutsReply reply;
  v1::StoredRollout& stored = *reply.add_rollouts();
  stored.set_update(128);
  stored.set_answer("98");
  v1::Message& message = *stored.add_prompt();
  message.set_role("user");
  message.set_content("What is 14 × 7?\nOnly the number.");
  v1::Rollout& rollout = *stored.mutable_rollout();
  rollout.mutable_group()->set_prompt(17);
  rollout.set_sibling(4);
  rollout.set_advantage(1.31);
  rollout.mutable_reward()->set_reward(1.2);
  v1::RewardPart& part = *rollout.mutable_reward()->add_parts();
  part.set_name("numeric");
  part.set_score(1);
  part.set_note("as a whole number");
  rollout.mutable_reward()->set_gated_by("format");
  v1::Completion& completion = *rollout.mutable_completion();
  completion.set_text("98");
  completion.add_token_ids(24);
  completion.add_behaviour_logprobs(-0.25f);
  completion.set_finish_reason(v1::FINISH_REASON_STOP);
  completion.add_versions()->mutable_version()->set_number(127);
  EXPECT_EQ(RolloutsText(reply, /*tokens=*/true),
            "update 128 · prompt 17 · sibling 4 · policy 127 · reward 1.2 (numeric 1) · failed "
            "the gate of format · advantage +1.31 · 1 tokens · stop\n"
            "  user   What is 14 × 7?\n         Only the number.\n"
            "  model  98\n  answer 98\n  note   numeric: as a whole number\n  tokens 24:-0.2500\n");
}

TEST(DescribeTextTest, AFailureSaysWhatIsKeptAndWhatToType) {
  v1::Job job = RunningJob();
  job.set_state(v1::JOB_STATE_FAILED);
  job.set_message("at update 131: loss is not finite\ncheckpoint 100 (update 100) is intact");
  EXPECT_EQ(EndText(job),
            "FAILED  products at update 131: loss is not finite\n"
            "        checkpoint 100 (update 100) is intact\n"
            "        rein describe products     rein resume products\n");
}

TEST(OutputTest, JsonAndYaml) {
  v1::Checkpoint checkpoint;
  checkpoint.set_number(2);
  checkpoint.set_created_at(1.5);
  EXPECT_THAT(ToJson(checkpoint), HasSubstr("\"created_at\": 1.5"));
  EXPECT_EQ(ToYamlText(checkpoint), "number: 2\ncreated_at: 1.5\n");
}

}  // namespace
}  // namespace rein::cli
