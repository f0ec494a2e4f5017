#include "common/telemetry/log.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace rein::telemetry {
namespace {

using ::testing::MatchesRegex;

std::vector<std::string> Lines(const std::string& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(LogTest, WritesOneReadableLinePerEvent) {
  std::string file = testing::TempDir() + "/log_test_lines.log";
  std::filesystem::remove(file);
  auto log = Log::Create({.role = "trainer", .actor = "trainer-0", .file = file});
  ASSERT_TRUE(log.ok()) << log.status();
  (*log)->Info("loaded", {{"parameters", "3200000"}});
  (*log)->SetJob("digits");
  (*log)->Error("not \"finite\"\nat all", {{"update", "3"}, {"empty", ""}});
  std::vector<std::string> lines = Lines(file);
  ASSERT_EQ(lines.size(), 2);
  EXPECT_THAT(lines[0], MatchesRegex("....-..-..T..:..:......Z INFO role=trainer actor=trainer-0 "
                                     "msg=loaded parameters=3200000"));
  EXPECT_THAT(lines[1], MatchesRegex(".*Z ERROR role=trainer actor=trainer-0 job=digits "
                                     "msg=\"not ..finite..\\\\nat all\" update=3 empty=\"\""));
}

TEST(LogTest, AFileThatCannotBeWrittenIsNamed) {
  auto log = Log::Create({.role = "trainer", .actor = "t", .file = "/nowhere/at/all.log"});
  EXPECT_EQ(log.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(log.status().message()),
              ::testing::HasSubstr("cannot open /nowhere/at/all.log"));
}

// 4000 lines by four threads through files of 16 KiB, read by somebody who reads all that is there at every moment: none is
// lost while it is kept, and what is kept is bounded.
TEST(LogTest, AFullFileIsBegunAnewAndTheOldestGoes) {
  const std::string folder = testing::TempDir() + "/log_test_rotation", file = folder + "/a.log";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  auto log = Log::Create({.role = "trainer", .actor = "trainer-0", .file = file, .max_bytes = 16 << 10});
  ASSERT_TRUE(log.ok()) << log.status();
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 4; ++writer) {
    writers.emplace_back([&, writer] {
      for (int i = 0; i < 1000; ++i) (*log)->Info("line", {{"writer", std::to_string(writer)}, {"number", std::to_string(i)}});
    });
  }
  for (std::thread& writer : writers) writer.join();
  std::vector<std::string> kept;
  for (int i = kOlderLogFiles; i >= 0; --i) {
    const std::string part = i == 0 ? file : file + "." + std::to_string(i);
    ASSERT_TRUE(std::filesystem::exists(part)) << part;
    EXPECT_LE(std::filesystem::file_size(part), 16 << 10) << part;
    for (std::string& line : Lines(part)) kept.push_back(std::move(line));
  }
  EXPECT_FALSE(std::filesystem::exists(file + ".5"));
  EXPECT_FALSE(std::filesystem::exists(file + ".new"));
  std::map<std::string, int> last;  // of each writer
  for (const std::string& line : kept) {
    ASSERT_THAT(line, MatchesRegex("....-..-..T.*Z INFO role=trainer actor=trainer-0 msg=line writer=. number=[0-9]+"));
    const std::string writer = line.substr(line.find("writer=") + 7, 1);
    const int number = std::stoi(line.substr(line.find("number=") + 7));
    if (last.count(writer) > 0) {
      EXPECT_EQ(number, last[writer] + 1) << line;
    }
    last[writer] = number;
  }
  for (const auto& [writer, number] : last) EXPECT_EQ(number, 999) << writer;
  EXPECT_GT(kept.size(), 4 * 100);
}

// What libraries say on standard error lands in the newest file, where it went to the log before.
TEST(LogTest, StandardErrorMovesAlong) {
  const std::string folder = testing::TempDir() + "/log_test_stderr", file = folder + "/a.log";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const int saved = dup(STDERR_FILENO), opened = open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ASSERT_EQ(dup2(opened, STDERR_FILENO), STDERR_FILENO);
  close(opened);
  auto log = Log::Create({.role = "trainer", .actor = "trainer-0", .file = file, .max_bytes = 200});
  for (int i = 0; i < 5; ++i) (*log)->Info("line");
  ASSERT_EQ(write(STDERR_FILENO, "last words\n", 11), 11);
  dup2(saved, STDERR_FILENO);
  close(saved);
  EXPECT_TRUE(std::filesystem::exists(file + ".1"));
  EXPECT_EQ(Lines(file).back(), "last words");
}

}  // namespace
}  // namespace rein::telemetry
