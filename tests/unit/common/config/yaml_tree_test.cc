#include "common/config/yaml_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::config {
namespace {

using ::testing::HasSubstr;

std::string Refusal(const std::string& text) {
  auto tree = ParseYaml(text);
  EXPECT_EQ(tree.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(tree.status().message());
}

TEST(YamlTreeTest, RemembersPlacesAndQuotes) {
  auto tree = ParseYaml("a: 1\nb:\n  - '2'\n  - {c: ~}\n");
  ASSERT_TRUE(tree.ok()) << tree.status();
  ASSERT_EQ(tree->entries.size(), 2);
  EXPECT_EQ(tree->entries[0].node().text, "1");
  EXPECT_FALSE(tree->entries[0].node().quoted);
  const YamlNode& list = tree->entries[1].node();
  EXPECT_TRUE(list.items[0].quoted);
  EXPECT_EQ(list.items[0].place.line, 3);
  EXPECT_EQ(list.items[0].place.column, 5);
  EXPECT_EQ(list.items[1].entries[0].node().kind, YamlNode::Kind::kNull);
}

TEST(YamlTreeTest, AnEmptyTextIsNothing) {
  EXPECT_EQ(ParseYaml("")->kind, YamlNode::Kind::kNull);
  EXPECT_EQ(ParseYaml("# only a comment\n")->kind, YamlNode::Kind::kNull);
}

TEST(YamlTreeTest, AliasesAreExpanded) {
  auto tree = ParseYaml("a: &x {b: 1}\nc: *x\n");
  ASSERT_TRUE(tree.ok()) << tree.status();
  EXPECT_EQ(tree->entries[1].node().entries[0].node().text, "1");
}

TEST(YamlTreeTest, BrokenTextNamesItsPlace) {
  EXPECT_THAT(Refusal("a: [1, 2\nb: 3\n"), HasSubstr("2:"));
  EXPECT_THAT(Refusal("a: 1\na: 2\n"), HasSubstr("2:1: the key 'a' stands twice; first at 1:1"));
  EXPECT_THAT(Refusal("{[1]: 2}"), HasSubstr("a key must be a plain text"));
  EXPECT_THAT(Refusal("a: 1\n---\nb: 2\n"), HasSubstr("more than one document"));
  EXPECT_THAT(Refusal(std::string("a: \0b", 5)), HasSubstr("byte 3 is zero"));
}

std::string Nested(int depth) { return std::string(depth, '[') + "1" + std::string(depth, ']'); }

TEST(YamlTreeTest, DepthIsBounded) {
  EXPECT_TRUE(ParseYaml(Nested(64)).ok());
  EXPECT_THAT(Refusal(Nested(65)), HasSubstr("nested more than 64 levels deep"));
  EXPECT_THAT(Refusal(Nested(6400)), HasSubstr("nested more than 64 levels deep"));
}

std::string Listed(int items) {
  std::string text = "[1";
  for (int i = 1; i < items; ++i) text += ",1";
  return text + "]";
}

TEST(YamlTreeTest, SizeIsBounded) {
  EXPECT_TRUE(ParseYaml(Listed(9999)).ok());  // and the list itself
  EXPECT_THAT(Refusal(Listed(10000)), HasSubstr("more than 10000 values"));
  std::string large(1 << 20, ' ');
  EXPECT_TRUE(ParseYaml(large).ok());
  EXPECT_THAT(Refusal(large + " "), HasSubstr("has 1048577 bytes, at most 1048576 are allowed"));
  EXPECT_THAT(Refusal(std::string(100 << 20, ' ')), HasSubstr("at most 1048576 are allowed"));
}

TEST(YamlTreeTest, AliasBombsAreRefused) {
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 9; ++i) {
    std::string level = "a" + std::to_string(i), under = "*a" + std::to_string(i - 1);
    bomb += level + ": &" + level + " [" + under;
    for (int j = 0; j < 9; ++j) bomb += "," + under;
    bomb += "]\n";
  }
  EXPECT_THAT(Refusal(bomb), HasSubstr("more than 10000 values"));
  std::string many = "a: &a 1\nb: [*a";
  for (int i = 0; i < 100; ++i) many += ",*a";
  EXPECT_THAT(Refusal(many + "]\n"), HasSubstr("more than 100 aliases"));
  EXPECT_THAT(Refusal("a: &a [*a]\n"), HasSubstr("an alias of a value that is not complete"));
}

}  // namespace
}  // namespace rein::config
