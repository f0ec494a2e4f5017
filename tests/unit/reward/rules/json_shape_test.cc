#include "reward/rules/json_shape.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "common/json/parse_json.h"
#include "reward/rules/columns.h"
#include "reward/rules/fenced_block.h"

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

v1::RewardItem Item(const std::string& completion, const std::string& columns = "{}") {
  v1::RewardItem item;
  item.mutable_completion()->set_text(completion);
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(columns, item.mutable_columns()).ok());
  return item;
}

JsonShapeOptions Schema(const std::string& text) {
  return {.schema = *json::JsonSchema::Compile(*json::ParseJson(text))};
}

TEST(JsonShapeTest, OnlyJsonThatFitsCounts) {
  JsonShapeOptions person = Schema(
      R"({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}})");
  EXPECT_EQ(JsonShape(Item(R"( {"name": "Ada"} )"), person)->score, 1);
  Verdict lacking = *JsonShape(Item("{}"), person);
  EXPECT_EQ(lacking.score, 0);
  EXPECT_EQ(lacking.note, "lacks name");
  Verdict broken = *JsonShape(Item(R"({"name": "Ada"} and more)"), person);
  EXPECT_EQ(broken.score, 0);
  EXPECT_THAT(broken.note, HasSubstr("no JSON: "));
  EXPECT_EQ(JsonShape(Item("[1, 2]"), {})->score, 1) << "without a schema any value does";
  EXPECT_EQ(JsonShape(Item("```json\n{\"name\": \"A\"}\n```"), person)->score, 0);
  person.fenced = true;
  EXPECT_EQ(JsonShape(Item("Here:\n```json\n{\"name\": \"A\"}\n```\nDone"), person)->score, 1);
  EXPECT_EQ(JsonShape(Item("{\"name\": \"A\"}"), person)->score, 1);
}

TEST(JsonShapeTest, AColumnHoldsTheSchemaOfItsPrompt) {
  JsonShapeOptions options = {.column = "extra.schema"};
  EXPECT_EQ(JsonShape(Item("3", R"({"extra": {"schema": {"maximum": 3}}})"), options)->score, 1);
  EXPECT_EQ(JsonShape(Item("4", R"({"extra": {"schema": "{\"maximum\": 3}"}})"), options)->score,
            0);
  EXPECT_THAT(std::string(JsonShape(Item("4"), options).status().message()),
              HasSubstr("no column extra.schema"));
  EXPECT_THAT(
      std::string(
          JsonShape(Item("4", R"({"extra": {"schema": "{"}})"), options).status().message()),
      HasSubstr("column extra.schema: "));
  EXPECT_THAT(std::string(JsonShape(Item("4", R"({"extra": {"schema": {"$ref": "#"}}})"), options)
                              .status()
                              .message()),
              HasSubstr("/$ref is a keyword that is not checked here"));
}

TEST(JsonShapeTest, HostileJsonIsNoJson) {
  EXPECT_EQ(JsonShape(Item(std::string(100'000, '[')), {})->score, 0);
  EXPECT_EQ(JsonShape(Item("{\"a\": 1, \"a\": 2}"), {})->score, 0);
  EXPECT_EQ(JsonShape(Item("\"\xff\""), {})->score, 0);
}

TEST(ColumnTest, PathsAndTexts) {
  v1::RewardItem item = Item(
      "", R"({"a": {"b": {"c": 1}}, "a.b": true, "half": 0.5, "big": 123456789012, "none": null})");
  EXPECT_EQ(ColumnText(*FindColumn(item.columns(), "a.b.c")), "1");
  EXPECT_EQ(ColumnText(*FindColumn(item.columns(), "a.b")), "true") << "a whole name goes first";
  EXPECT_EQ(ColumnText(*FindColumn(item.columns(), "half")), "0.5");
  EXPECT_EQ(ColumnText(*FindColumn(item.columns(), "big")), "123456789012");
  EXPECT_EQ(ColumnText(*FindColumn(item.columns(), "none")), "null");
  EXPECT_EQ(FindColumn(item.columns(), "a.x"), nullptr);
  EXPECT_EQ(FindColumn(item.columns(), "half.x"), nullptr);
}

TEST(FencedBlockTest, TheLastThatCloses) {
  EXPECT_EQ(LastFencedBlock("a\n```py\nx\ny\n```\nb"), "x\ny\n");
  EXPECT_EQ(LastFencedBlock("```\n1\n```\n```\n2\n```"), "2\n");
  EXPECT_EQ(LastFencedBlock("```\n1\n```\n```\n2\n"), "1\n");
  EXPECT_EQ(LastFencedBlock("```\n2\n"), "2\n");
  EXPECT_EQ(LastFencedBlock("  ```\n2\n  ```"), "2\n");
  EXPECT_EQ(LastFencedBlock("```\n```"), "");
  EXPECT_EQ(LastFencedBlock("x ``` y"), std::nullopt);
  EXPECT_EQ(LastFencedBlock(""), std::nullopt);
  EXPECT_EQ(LastFencedBlock("```"), "");
}

}  // namespace
}  // namespace rein::reward
