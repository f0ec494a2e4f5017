#include "reward/rules/script.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

double Share(const std::string& name, absl::string_view text) {
  return Script::Create(name)->Share(text);
}

TEST(ScriptTest, SharesOfLetters) {
  EXPECT_DOUBLE_EQ(Share("Latin", "plain English, 100%"), 1);
  EXPECT_DOUBLE_EQ(Share("Latin", "ab中文"), 0.5);
  EXPECT_DOUBLE_EQ(Share("Han", "ab中文"), 0.5);
  EXPECT_DOUBLE_EQ(Share("Cyrillic", "да, da"), 0.5);
  EXPECT_DOUBLE_EQ(Share("Hangul", "한국어"), 1);
  EXPECT_DOUBLE_EQ(Share("Latin", "éß"), 1);
  EXPECT_DOUBLE_EQ(Share("Latin", "12 + 30 = 42"), 1) << "no letters, none of another script";
  EXPECT_DOUBLE_EQ(Share("Latin", "\xff\xfe"), 1);
}

TEST(ScriptTest, UnknownNamesAreRefused) {
  for (const char* name : {"Klingon", "L", "Lu", "Any", "", "Han}", "^Han"}) {
    EXPECT_THAT(std::string(Script::Create(name).status().message()),
                HasSubstr("is no Unicode script"))
        << name;
  }
}

}  // namespace
}  // namespace rein::reward
