#include "services/controller/log_reader.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/telemetry/log.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;

class LogReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/log_reader_test";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }

  std::unique_ptr<telemetry::Log> LogOf(const std::string& actor, uint64_t max_bytes) {
    return *telemetry::Log::Create({.role = "trainer", .actor = actor, .file = folder_ + "/" + actor + ".log", .max_bytes = max_bytes});
  }

  static std::vector<int> Numbers(LogReader& reader) {
    std::vector<int> numbers;
    for (const v1::LogLine& line : reader.ReadNew()) {
      numbers.push_back(std::stoi(line.text().substr(line.text().find("number=") + 7)));
    }
    return numbers;
  }

  std::string folder_;
};

// Files of about ten lines: most reads find the file begun anew, once or more often, since the last.
TEST_F(LogReaderTest, AFollowerLosesNoLineWhenTheFileIsBegunAnew) {
  auto log = LogOf("trainer-0", 1000);
  log->SetJob("digits");
  LogReader actor(folder_, "trainer-0"), job(folder_, "digits");
  EXPECT_TRUE(actor.IsActor());
  EXPECT_FALSE(job.IsActor());
  std::vector<int> wanted, by_actor, by_job;
  for (int i = 0; i < 300; ++i) {
    log->Info("line", {{"number", std::to_string(i)}});
    wanted.push_back(i);
    if (i % 7 != 0 && i % 23 != 0 && i != 299) continue;
    for (int number : Numbers(actor)) by_actor.push_back(number);
    for (int number : Numbers(job)) by_job.push_back(number);
  }
  EXPECT_EQ(by_actor, wanted);
  EXPECT_EQ(by_job, wanted);
  LogReader late(folder_, "trainer-0");
  const std::vector<int> kept = Numbers(late);
  EXPECT_EQ(kept, std::vector<int>(wanted.end() - static_cast<std::ptrdiff_t>(kept.size()), wanted.end()));
  EXPECT_GT(kept.size(), 40) << "older parts are read too";
}

TEST_F(LogReaderTest, HalfALineWaitsForItsEnd) {
  std::ofstream out(folder_ + "/trainer-0.log", std::ios::app);
  LogReader reader(folder_, "trainer-0");
  out << "x number=1\ny numb" << std::flush;
  EXPECT_THAT(Numbers(reader), ElementsAre(1));
  EXPECT_THAT(Numbers(reader), ElementsAre());
  out << "er=2\n" << std::flush;
  EXPECT_THAT(Numbers(reader), ElementsAre(2));
}

TEST_F(LogReaderTest, AFileThatWasCutIsReadAgain) {
  const std::string path = folder_ + "/trainer-0.log";
  std::ofstream(path) << "x number=1\nx number=2\n";
  LogReader reader(folder_, "trainer-0");
  EXPECT_THAT(Numbers(reader), ElementsAre(1, 2));
  fs::resize_file(path, 0);
  std::ofstream(path, std::ios::app) << "x number=3\n";
  EXPECT_THAT(Numbers(reader), ElementsAre(3));
}

}  // namespace
}  // namespace rein::services
