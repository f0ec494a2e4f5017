#include "common/json/parse_json.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::json {
namespace {

using ::testing::HasSubstr;

std::string Error(std::string_view text, const JsonLimits& limits = {}) {
  return std::string(ParseJson(text, limits).status().message());
}

TEST(ParseJsonTest, ReadsAValue) {
  auto value = ParseJson(R"({"a": [1, {"a": "\"[["}]})");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ((*value)["a"][1]["a"], "\"[[");
}

TEST(ParseJsonTest, SaysWhereItIsBroken) {
  EXPECT_THAT(Error("{\"a\": 1,\n \"b\" 2}"), HasSubstr("line 2, column 6"));
  EXPECT_THAT(Error(""), HasSubstr("unexpected end of input"));
  EXPECT_THAT(Error("{} {}"), HasSubstr("syntax error"));
  EXPECT_THAT(Error("\"\xff\""), HasSubstr("ill-formed UTF-8"));
}

TEST(ParseJsonTest, RefusesAKeyThatStandsTwice) {
  EXPECT_THAT(Error(R"({"a": 1, "b": {"a": 2}, "a": 3})"), HasSubstr("\"a\" stands twice"));
  EXPECT_EQ(Error(R"({"a": 1, "b": {"a": 2}})"), "");
}

TEST(ParseJsonTest, KeepsItsLimits) {
  JsonLimits limits = {.max_bytes = 100, .max_depth = 3};
  EXPECT_EQ(Error("[[[]]]", limits), "");
  EXPECT_THAT(Error("[[[[]]]]", limits), HasSubstr("nested 4 deep, at most 3"));
  EXPECT_THAT(Error(std::string(101, ' '), limits), HasSubstr("101 bytes, at most 100"));
  EXPECT_THAT(Error(std::string(1'000'000, '[')), HasSubstr("nested 1000000 deep"));
}

TEST(ParseJsonTest, NamesTheFile) {
  std::string path = testing::TempDir() + "/broken.json";
  std::ofstream(path) << "{";
  EXPECT_THAT(std::string(ReadJsonFile(path).status().message()), HasSubstr("broken.json: "));
  absl::Status absent = ReadJsonFile(testing::TempDir() + "/absent.json").status();
  EXPECT_TRUE(absl::IsNotFound(absent)) << absent;
  EXPECT_THAT(std::string(absent.message()), HasSubstr("absent.json"));
}

}  // namespace
}  // namespace rein::json
