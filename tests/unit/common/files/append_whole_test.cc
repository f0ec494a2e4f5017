#include "common/files/append_whole.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/files/disk_room.h"

namespace rein::files {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

TEST(AppendWholeTest, AFileThatMayNotGrowKeepsWhatItHad) {
  signal(SIGXFSZ, SIG_IGN);
  const std::string path = testing::TempDir() + "/append_whole_test";
  std::filesystem::remove(path);
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ASSERT_TRUE(AppendWhole(file, path, "one\n").ok());
  rlimit before, narrow;
  getrlimit(RLIMIT_FSIZE, &before);
  narrow = {8, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &narrow);
  const absl::Status status = AppendWhole(file, path, "two, which is too long\n");
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_THAT(std::string(status.message()), MatchesRegex("cannot append to .*/append_whole_test: File too large"));
  ASSERT_TRUE(AppendWhole(file, path, "three\n").ok());
  close(file);
  std::ifstream in(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "one\nthree\n");
}

TEST(AppendWholeTest, AFullDiskIsNamedWithWhatIsFree) {
  const int full = open("/dev/full", O_WRONLY | O_APPEND);
  const absl::Status status = AppendWhole(full, "/dev/full", "x");
  close(full);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot append to /dev/full (its disk has "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("rein gc --dry-run says what could go): No space left on device"));
}

TEST(DiskRoomTest, OnlyAFullDiskIsSpokenOf) {
  EXPECT_EQ(DiskRoom("/", EACCES), "");
  EXPECT_THAT(DiskRoom("/nowhere/at/all", ENOSPC), MatchesRegex(" \\(its disk has [0-9.]+ [MG]iB of [0-9.]+ [MG]iB free; make room, .*\\)"));
  EXPECT_EQ(DiskRoom("/", EDQUOT), " (make room, rein gc --dry-run says what could go)");
}

}  // namespace
}  // namespace rein::files
