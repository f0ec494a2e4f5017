#include "common/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace rein::checkpoint {
namespace {

using ::testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest() : path_(absl::StrCat(testing::TempDir(), "/", getpid(), ".safetensors")) {}
  ~SafetensorsTest() override { std::filesystem::remove(path_); }

  void Write(const std::string& header, const std::string& payload, int64_t claimed = -1) {
    uint64_t size = claimed < 0 ? header.size() : claimed;
    std::ofstream file(path_, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), 8);
    file << header << payload;
  }
  std::string Error() { return std::string(SafetensorsFile::Open(path_).status().message()); }

  std::string path_;
};

TEST_F(SafetensorsTest, ReadsWhatItWrote) {
  float weights[6] = {1, 2, 3, 4, 5, 6};
  int64_t count = 7;
  std::vector<NamedTensor> tensors = {
      {"w", {"F32", {2, 3}, reinterpret_cast<const char*>(weights), sizeof(weights)}},
      {"count", {"I64", {}, reinterpret_cast<const char*>(&count), 8}},
      {"empty", {"BF16", {0, 4}, nullptr, 0}}};
  ASSERT_TRUE(WriteSafetensors(path_, tensors, {{"format", "pt"}}).ok());
  auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  const TensorView* view = (*file)->Find("w");
  ASSERT_NE(view, nullptr);
  EXPECT_EQ(view->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(view->data, weights, sizeof(weights)), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data) % 8, 0u);
  EXPECT_EQ((*file)->tensors().size(), 3u);
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  EXPECT_EQ((*file)->Find("x"), nullptr);
}

TEST_F(SafetensorsTest, RefusesHostileFiles) {
  auto entry = [](const char* name, int begin, int end) {
    return absl::StrCat("\"", name, R"(":{"dtype":"F32","shape":[1],"data_offsets":[)", begin, ",",
                        end, "]}");
  };
  Write("{" + entry("a", 0, 4) + "," + entry("b", 2, 6) + "}", "123456");
  EXPECT_THAT(Error(), HasSubstr("hole or an overlap at byte 4"));
  Write("{" + entry("a", 0, 4) + "," + entry("b", 8, 12) + "}", "123456789012");
  EXPECT_THAT(Error(), HasSubstr("hole or an overlap"));
  Write("{" + entry("a", 0, 4) + "}", "12");
  EXPECT_THAT(Error(), HasSubstr("tensor 'a' ends at byte 4, but the file holds 2 bytes"));
  Write("{" + entry("a", 0, 4) + "}", "123456");
  EXPECT_THAT(Error(), HasSubstr("2 bytes follow the last tensor"));
  Write("{" + entry("a", 0, 4) + "," + entry("a", 0, 4) + "}", "1234");
  EXPECT_THAT(Error(), HasSubstr("header: key \"a\" stands twice"));
  Write("{" + entry("a", 0, 8) + "}", "12345678");
  EXPECT_THAT(Error(), HasSubstr("shape and dtype want 4"));
  Write(R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", "1234");
  EXPECT_THAT(Error(), HasSubstr("unknown dtype F99"));
  Write(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", "");
  EXPECT_THAT(Error(), HasSubstr("shape is too large"));
  Write(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234");
  EXPECT_THAT(Error(), HasSubstr("shape is not a list of counts"));
  Write("{}", "", int64_t{1} << 40);
  EXPECT_THAT(Error(), HasSubstr("header claims"));
  Write("not json", "");
  EXPECT_THAT(Error(), HasSubstr("header: parse error at line 1, column 2"));
  Write("[1]", "");
  EXPECT_THAT(Error(), HasSubstr("not a JSON object"));
  Write(R"({"a":[[[[1]]]]})", "");
  EXPECT_THAT(Error(), HasSubstr("header: JSON nested 5 deep, at most 4 are read"));
  std::ofstream(path_) << "abc";
  EXPECT_THAT(Error(), HasSubstr("too few"));
  EXPECT_TRUE(absl::IsNotFound(SafetensorsFile::Open("/nonexistent/x").status()));
}

TEST_F(SafetensorsTest, AFullDiskIsSaidAndLeavesNothing) {
  std::vector<char> big(1 << 20);
  std::filesystem::create_symlink("/dev/full", path_);  // the link is what an error removes
  absl::Status status = WriteSafetensors(path_, {{"w", {"U8", {1 << 20}, big.data(), big.size()}}});
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::symlink_status(path_)));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

}  // namespace
}  // namespace rein::checkpoint
