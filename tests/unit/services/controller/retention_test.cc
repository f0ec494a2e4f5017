#include "services/controller/retention.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::services {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr double kDay = 86400;

JobRecord Ended(double at) {
  JobRecord job;
  job.name = "job";
  job.ended_at = at;
  return job;
}

std::vector<Leftover> Due(const JobRecord& job, double now) {
  std::vector<Leftover> due;
  for (const DueLeftover& one : DueLeftovers(job, now)) due.push_back(one.what);
  return due;
}

TEST(RetentionTest, NothingIsDueUnlessTheJobSaysSo) {
  EXPECT_THAT(Due(Ended(1), 1e12), IsEmpty());
  JobRecord job = Ended(1);
  v1::RetentionConfig& kept = *job.config.mutable_retention();
  kept.set_rollouts_days(0);
  kept.set_job_days(0);
  EXPECT_THAT(Due(job, 1e12), IsEmpty()) << "0 days: for ever";
}

TEST(RetentionTest, EachAgeCountsFromTheEnd) {
  JobRecord job = Ended(10 * kDay);
  v1::RetentionConfig& kept = *job.config.mutable_retention();
  kept.set_logs_days(1);
  kept.set_rollouts_days(2);
  kept.set_checkpoints_days(0.5);
  EXPECT_THAT(Due(job, 10.4 * kDay), IsEmpty());
  EXPECT_THAT(Due(job, 10.5 * kDay), ElementsAre(Leftover::kCheckpoints));
  EXPECT_THAT(Due(job, 20 * kDay), ElementsAre(Leftover::kCheckpoints, Leftover::kLogs, Leftover::kRollouts))
      << "the longest due first";
  EXPECT_EQ(DueLeftovers(job, 20 * kDay)[2].due_at, 12 * kDay);
  job.expired = static_cast<uint64_t>(Leftover::kLogs) | static_cast<uint64_t>(Leftover::kCheckpoints);
  EXPECT_THAT(Due(job, 20 * kDay), ElementsAre(Leftover::kRollouts)) << "what is gone is not due again";
  kept.set_job_days(5);
  EXPECT_THAT(Due(job, 20 * kDay), ElementsAre(Leftover::kJob)) << "all of it";
  job.ended_at = 0;
  EXPECT_THAT(Due(job, 20 * kDay), IsEmpty()) << "it runs";
}

TEST(RetentionTest, OnlyWhatRolesLeftIsRemoved) {
  const fs::path folder = fs::path(testing::TempDir()) / "retention_test";
  fs::remove_all(folder);
  fs::create_directories(folder / "out/checkpoints/3");
  fs::create_directories(folder / "out/tensorboard");
  std::ofstream(folder / "out/checkpoints/3/weights") << "1234567";
  std::ofstream(folder / "out/metrics.jsonl") << "{}\n";
  std::ofstream(folder / "out/notes.txt") << "mine";
  const std::string out = (folder / "out").string(), rollouts = (folder / "rollouts").string();
  EXPECT_EQ(DiskBytes(out + "/checkpoints"), 7);
  EXPECT_EQ(DiskBytes(out + "/metrics.jsonl"), 3);
  EXPECT_EQ(DiskBytes(rollouts), 0) << "not there";
  ASSERT_TRUE(RemovePaths(PathsOf(Leftover::kCheckpoints, out, rollouts)).ok());
  EXPECT_FALSE(fs::exists(folder / "out/checkpoints"));
  EXPECT_TRUE(fs::exists(folder / "out/metrics.jsonl"));
  ASSERT_TRUE(RemovePaths(PathsOf(Leftover::kJob, out, rollouts)).ok());
  EXPECT_FALSE(fs::exists(folder / "out/metrics.jsonl"));
  EXPECT_FALSE(fs::exists(folder / "out/tensorboard"));
  EXPECT_TRUE(fs::exists(folder / "out/notes.txt"));
}

}  // namespace
}  // namespace rein::services
