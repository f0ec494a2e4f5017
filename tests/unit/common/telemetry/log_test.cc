#include "common/telemetry/log.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace rein::telemetry
