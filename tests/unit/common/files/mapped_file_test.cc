#include "common/files/mapped_file.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/files/read_file.h"

namespace rein::files {
namespace {

using ::testing::HasSubstr;

std::string Write(const std::string& name, const std::string& content) {
  std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path) << content;
  return path;
}

TEST(MappedFileTest, ShowsTheBytes) {
  EXPECT_EQ((*MappedFile::Open(Write("some.txt", "abc")))->bytes(), "abc");
  EXPECT_EQ((*MappedFile::Open(Write("empty.txt", "")))->bytes(), "");
}

TEST(MappedFileTest, RefusesWhatIsNoFile) {
  absl::Status status = MappedFile::Open(testing::TempDir()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_TRUE(absl::IsNotFound(MappedFile::Open("/no/such/file").status()));
}

TEST(ReadFileTest, KeepsItsLimit) {
  std::string path = Write("limit.txt", "12345");
  EXPECT_EQ(*ReadFile(path, 5), "12345");
  EXPECT_THAT(std::string(ReadFile(path, 4).status().message()), HasSubstr("5 bytes, at most 4"));
}

}  // namespace
}  // namespace rein::files
