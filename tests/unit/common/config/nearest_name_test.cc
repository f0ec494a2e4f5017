#include "common/config/nearest_name.h"

#include <gtest/gtest.h>

namespace rein::config {
namespace {

TEST(NearestNameTest, FindsSlipsAndNothingElse) {
  std::vector<std::string> names = {"group_size", "prompts", "temperature", "top_k", "top_p"};
  EXPECT_EQ(NearestName("groupsize", names), "group_size");
  EXPECT_EQ(NearestName("group-size", names), "group_size");
  EXPECT_EQ(NearestName("Prompts", names), "prompts");
  EXPECT_EQ(NearestName("tempreature", names), "temperature");
  EXPECT_EQ(NearestName("temp", names), "temperature");
  EXPECT_EQ(NearestName("learning_rate", names), "");
  EXPECT_EQ(NearestName("", names), "");
  EXPECT_EQ(NearestName("x", {}), "");
}

}  // namespace
}  // namespace rein::config
