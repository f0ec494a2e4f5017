// What people see of every table of `rein get`, `rein describe`, `rein top` and `rein metrics`, letter by letter, in
// terminals of 80 and of 200 columns. REIN_WRITE_GOLDEN=1 writes the files anew: read the difference before it is kept.

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "services/cli/describe_text.h"
#include "services/cli/report_text.h"
#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);
constexpr double kSeconds = 1'700'000'000;

void AddMetrics(google::protobuf::RepeatedPtrField<v1::Metric>* metrics, std::initializer_list<std::pair<const char*, double>> values) {
  for (const auto& [name, value] : values) {
    v1::Metric* metric = metrics->Add();
    metric->set_name(name);
    metric->set_value(value);
  }
}

v1::Job Running() {
  v1::Job job;
  job.set_name("grpo-products-7b-second-attempt");
  job.set_kind("grpo");
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_group("default");
  job.set_update(128);
  job.set_max_updates(200);
  job.set_submitted_at(kSeconds - 7384);
  AddMetrics(job.mutable_metrics(), {{"reward", 0.6125}, {"loss", -0.0125}, {"tokens_per_second", 41234}});
  return job;
}

v1::ListJobsReply Jobs() {
  v1::ListJobsReply jobs;
  v1::Job& waits = *jobs.add_jobs();
  waits.set_name("sums");
  waits.set_kind("reinforce_pp_baseline");
  waits.set_state(v1::JOB_STATE_QUEUED);
  waits.set_submitted_at(kSeconds - 12);
  waits.set_message("waits for a free group: default runs grpo-products-7b-second-attempt, h100-box runs a job of another tenant");
  *jobs.add_jobs() = Running();
  v1::Job& failed = *jobs.add_jobs();
  failed.set_name("digits");
  failed.set_kind("sft");
  failed.set_state(v1::JOB_STATE_FAILED);
  failed.set_update(3);
  failed.set_max_updates(40);
  failed.set_submitted_at(kSeconds - 3 * 86400);
  failed.set_message("at update 3: trainer cannot make update 4: loss is not finite, größer als alles\ncheckpoint 1 (update 2) is intact");
  v1::Job& done = *jobs.add_jobs();
  done.set_name("e");
  done.set_kind("evaluate");
  done.set_state(v1::JOB_STATE_SUCCEEDED);
  done.set_submitted_at(kSeconds - 59);
  return jobs;
}

v1::ListActorsReply Actors() {
  v1::ListActorsReply actors;
  auto add = [&](const std::string& role, const std::string& name, const std::string& group, const std::string& state) {
    v1::Actor& actor = *actors.add_actors();
    actor.set_role(role);
    actor.set_name(name);
    actor.set_group(group);
    actor.set_state(state);
    actor.set_epoch(7);
    actor.set_device("cpu");
    actor.set_address("127.0.0.1:40123");
    actor.set_silent_seconds(1.5);
    return &actor;
  };
  v1::Actor* trainer = add("trainer", "trainer-0", "default", "READY");
  trainer->set_device("gpu:0");
  trainer->add_peers("127.0.0.1:40124");
  trainer->set_job("grpo-products-7b-second-attempt");
  trainer->set_load("grpo-products-7b-second-attempt");
  trainer->mutable_version()->set_lineage(1);
  trainer->mutable_version()->set_number(128);
  add("trainer", "trainer-1", "default", "LOST")->set_rank(1);
  v1::Actor* rollout = add("rollout", "h100-box-rollout", "h100-box", "READY");
  rollout->set_address("rollout-0.rollout.rein.svc:7000");
  rollout->set_load("12 running, 244 waiting, 18432 of 20480 pages");
  add("reward", "reward-0", "default", "READY");
  return actors;
}

v1::ListUpdatesReply Updates() {
  v1::ListUpdatesReply updates;
  for (uint64_t update : {1, 2}) {
    v1::UpdateRecord& record = *updates.add_updates();
    record.set_update(update);
    AddMetrics(record.mutable_metrics(), {{"reward", 0.25 * static_cast<double>(update)}, {"loss", -0.5}, {"kl", 1e-5}, {"entropy", 2.5},
                                          {"grad_norm", 0.75}, {"completion_tokens", 1234.5}, {"truncated_ratio", 0},
                                          {"tokens_per_second", 41234}, {"seconds", 11.25}, {"lag", 0}});
  }
  return updates;
}

std::string Described() {
  v1::Job job = Jobs().jobs(2);
  job.set_output("/srv/rein/jobs/digits");
  job.set_config_hash("0123456789ab");
  job.set_disk_bytes(12'000'000);
  job.set_config_yaml("name: digits\nsft: {updates: 40}\n");
  v1::Checkpoint& checkpoint = *job.add_checkpoints();
  checkpoint.set_number(1);
  checkpoint.set_update(2);
  checkpoint.set_bytes(4'000'000);
  checkpoint.set_path("/srv/rein/jobs/digits/checkpoints/1");
  checkpoint.set_created_at(kSeconds - 600);
  v1::EvalResult& eval = *job.add_evals();
  eval.set_update(2);
  eval.set_accuracy(0.375);
  eval.set_standard_error(0.0125);
  eval.set_prompts(400);
  AddMetrics(job.mutable_metrics(), {{"loss", 1.25}, {"seconds", 0.5}});
  v1::LedgerSummary ledger;
  ledger.set_consumed(96);
  ledger.set_training(32);
  ledger.set_rollouts_stored(0);
  for (int i = 0; i < 3; ++i) ledger.add_dropped()->set_reason(i == 0 ? "the text is a single token" : "too long: 4097 tokens, at most 4096");
  std::vector<v1::JobEvent> events(3);
  events[0].set_state(v1::JOB_STATE_QUEUED);
  events[1].set_state(v1::JOB_STATE_STARTING);
  events[1].set_detail("reads the data");
  events[2].set_message("the trainer plans 12 GiB");
  for (size_t i = 0; i < events.size(); ++i) events[i].set_time(kSeconds - 300 + 60 * static_cast<double>(i));
  return DescribeJob(job, ledger, events, kNow);
}

class GoldenTextTest : public testing::TestWithParam<size_t> {
 protected:
  void Expect(const std::string& name, const std::string& text) {
    const std::string path = absl::StrCat("tests/golden/cli/", name, "_", GetParam(), ".txt");
    if (std::getenv("REIN_WRITE_GOLDEN") != nullptr) std::ofstream(path) << text;
    std::ifstream in(path);
    const std::string golden{std::istreambuf_iterator<char>(in), {}};
    EXPECT_FALSE(golden.empty()) << path;
    EXPECT_EQ(text, golden) << path;
  }
};
INSTANTIATE_TEST_SUITE_P(Columns, GoldenTextTest, testing::Values(80, 200));

TEST_P(GoldenTextTest, GetJobs) { Expect("jobs", JobsTable(Jobs(), kNow, GetParam())); }

TEST_P(GoldenTextTest, GetActors) { Expect("actors", ActorsTable(Actors(), GetParam())); }

TEST_P(GoldenTextTest, DescribeJob) { Expect("describe", Described()); }

TEST_P(GoldenTextTest, Top) { Expect("top", TopText(Actors(), Jobs(), kNow, GetParam())); }

TEST_P(GoldenTextTest, Metrics) {
  const std::string text = MetricsTable(Updates(), CommonKeys(Updates()), static_cast<int>(GetParam()));
  Expect("metrics", text);
}

TEST_P(GoldenTextTest, Checkpoints) {
  v1::Job job;
  for (uint32_t number : {1, 12}) {
    v1::Checkpoint& checkpoint = *job.add_checkpoints();
    checkpoint.set_number(number);
    checkpoint.set_update(10 * number);
    checkpoint.set_bytes(number * uint64_t{4'000'000'000});
    checkpoint.set_path(absl::StrCat("/srv/rein/jobs/digits-with-a-name-that-is-rather-long-for-a-folder/checkpoints/", number));
    checkpoint.set_created_at(kSeconds - 86400.0 / number);
  }
  Expect("checkpoints", CheckpointsTable(job, kNow, GetParam()));
}

TEST(TableTest, TheLastColumnIsCutWhereALineWouldBeLonger) {
  const std::vector<std::vector<std::string>> rows = {{"A", "MESSAGE"}, {"one", "größer als alles, und länger"}, {"two", "short"}};
  EXPECT_EQ(Table(rows, 33), Table(rows)) << "what just fits is whole";
  EXPECT_EQ(Table(rows, 32), "A    MESSAGE\none  größer als alles, und läng…\ntwo  short\n");
  EXPECT_EQ(Table(rows, 29), "A    MESSAGE\none  größer als alles, und l…\ntwo  short\n");
  EXPECT_EQ(Table(rows, 3), Table(rows, 29)) << "its beginning is always said";
  EXPECT_EQ(Table(rows), "A    MESSAGE\none  größer als alles, und länger\ntwo  short\n");
}

}  // namespace
}  // namespace rein::cli
