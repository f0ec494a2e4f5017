#include "services/controller/job_recorder.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "services/controller/crc32c.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string ReadAll(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

uint32_t Masked(const std::string& bytes) {
  uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8;
}

class JobRecorderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    log_ = *telemetry::Log::Create({.role = "controller", .actor = "c", .file = "/dev/null"});
    job_.name = "digits";
    job_.output = testing::TempDir() + "/job_recorder_test";
    fs::remove_all(job_.output);
    record_.set_update(3);
    record_.set_max_updates(8);
    for (const auto& [name, value] : {std::pair<std::string, double>{"reward", 0.5},
                                      {"reward/numeric", 0.25},
                                      {"loss", -0.125},
                                      {"seconds", 2},
                                      {"train_seconds", 1}}) {
      v1::Metric* metric = record_.add_metrics();
      metric->set_name(name);
      metric->set_value(value);
    }
  }

  sync::VirtualClock clock_{absl::FromUnixSeconds(1000)};
  telemetry::Metrics metrics_;
  std::unique_ptr<telemetry::Log> log_;
  JobRecord job_;
  v1::UpdateRecord record_;
};

TEST_F(JobRecorderTest, AnUpdateIsALineAndGauges) {
  JobRecorder recorder(clock_, metrics_, *log_);
  recorder.OnUpdate(job_, record_);
  recorder.OnUpdate(job_, record_);
  std::istringstream lines(ReadAll(job_.output + "/metrics.jsonl"));
  std::string line;
  int count = 0;
  for (; std::getline(lines, line); ++count) {
    nlohmann::json json = nlohmann::json::parse(line);
    EXPECT_EQ(json["update"], 3);
    EXPECT_EQ(json["reward/numeric"], 0.25);
  }
  EXPECT_EQ(count, 2);
  std::string page = metrics_.Text();
  EXPECT_THAT(page, HasSubstr("rein_controller_update{rl_job=\"digits\"} 3"));
  EXPECT_THAT(page,
              HasSubstr("rein_controller_reward_mean{reward=\"numeric\",rl_job=\"digits\"} 0.25"));
  EXPECT_THAT(page, HasSubstr("rein_controller_loss{rl_job=\"digits\"} -0.125"));
  EXPECT_THAT(page, HasSubstr("phase=\"train\""));
}

TEST_F(JobRecorderTest, TensorboardFramesAreWholeAndTheirSumsHold) {
  JobRecorder recorder(clock_, metrics_, *log_);
  recorder.OnUpdate(job_, record_);
  std::string bytes;
  for (const auto& entry : fs::directory_iterator(job_.output + "/tensorboard")) {
    EXPECT_THAT(entry.path().filename().string(), HasSubstr("events.out.tfevents.1000."));
    bytes = ReadAll(entry.path());
  }
  std::vector<std::string> payloads;
  for (size_t at = 0; at < bytes.size();) {
    ASSERT_LE(at + 12, bytes.size());
    uint64_t length = 0;
    uint32_t length_crc = 0, payload_crc = 0;
    std::memcpy(&length, bytes.data() + at, 8);
    std::memcpy(&length_crc, bytes.data() + at + 8, 4);
    EXPECT_EQ(length_crc, Masked(bytes.substr(at, 8)));
    payloads.push_back(bytes.substr(at + 12, length));
    std::memcpy(&payload_crc, bytes.data() + at + 12 + length, 4);
    EXPECT_EQ(payload_crc, Masked(payloads.back()));
    at += 16 + length;
  }
  ASSERT_EQ(payloads.size(), 2);
  EXPECT_THAT(payloads[0], HasSubstr("brain.Event:2"));
  EXPECT_THAT(payloads[1], HasSubstr("reward/numeric"));
}

TEST_F(JobRecorderTest, EvalsAndStates) {
  JobRecorder recorder(clock_, metrics_, *log_);
  v1::EvalResult eval;
  eval.set_update(3);
  eval.set_accuracy(0.75);
  recorder.OnEval(job_, eval);
  EXPECT_EQ(nlohmann::json::parse(ReadAll(job_.output + "/evals.jsonl"))["accuracy"], 0.75);
  EXPECT_THAT(metrics_.Text(), HasSubstr("metric=\"accuracy\",rl_job=\"digits\"} 0.75"));
  job_.state = v1::JOB_STATE_SUCCEEDED;
  recorder.OnState(job_);
  std::string page = metrics_.Text();
  EXPECT_THAT(page,
              HasSubstr("rein_controller_job_state{rl_job=\"digits\",state=\"SUCCEEDED\"} 1"));
  EXPECT_THAT(page, HasSubstr("rein_controller_job_state{rl_job=\"digits\",state=\"RUNNING\"} 0"));
  EXPECT_THAT(page, HasSubstr("rein_controller_jobs_total{result=\"SUCCEEDED\"} 1"));
}

// What a job left on the page goes when it ends; its state stays for a while, so that it can be alerted on.
TEST_F(JobRecorderTest, SeriesOfEndedJobsAreRemoved) {
  JobRecorder recorder(clock_, metrics_, *log_);
  for (int i = 0; i < 250; ++i) {
    job_.name = absl::StrCat("digits-", i);
    recorder.OnUpdate(job_, record_);
    job_.state = i % 2 == 0 ? v1::JOB_STATE_SUCCEEDED : v1::JOB_STATE_FAILED;
    recorder.OnState(job_);
    job_.state = v1::JOB_STATE_RUNNING;
  }
  std::string page = metrics_.Text();
  EXPECT_THAT(page, testing::Not(HasSubstr("rein_controller_update{")));
  EXPECT_THAT(page, testing::Not(HasSubstr("rein_controller_reward_mean{")));
  EXPECT_THAT(page, testing::Not(HasSubstr("rein_controller_update_duration_seconds_bucket")));
  EXPECT_THAT(page, HasSubstr("rein_controller_job_state{rl_job=\"digits-249\",state=\"FAILED\"} 1"));
  EXPECT_THAT(page, testing::Not(HasSubstr("digits-149\"")));
  size_t states = 0;
  for (size_t at = 0; (at = page.find("rein_controller_job_state{", at)) != std::string::npos; ++at) ++states;
  EXPECT_EQ(states, 100 * 7);
  recorder.OnDelete(job_);
  EXPECT_THAT(metrics_.Text(), testing::Not(HasSubstr("digits-249\"")));
}

}  // namespace
}  // namespace rein::services
