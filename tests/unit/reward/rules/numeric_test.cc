#include "reward/rules/numeric.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "reward/rules/number.h"

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

double Value(absl::string_view text) {
  std::optional<Number> number = LastNumber(text);
  return number.has_value() ? number->value : -999;
}

TEST(LastNumberTest, ReadsWhatPeopleWrite) {
  EXPECT_EQ(Value("6 * 7 = 42."), 42);
  EXPECT_EQ(Value("$1,234,567.50 in all"), 1234567.5);
  EXPECT_EQ(Value("so -3"), -3);
  EXPECT_EQ(Value("so \u22123"), -3) << "U+2212";
  EXPECT_EQ(Value("(-3)"), -3);
  EXPECT_EQ(Value("7-3"), 3) << "a difference";
  EXPECT_EQ(Value("x)-3"), 3) << "a difference";
  EXPECT_EQ(Value("7 - -3"), -3);
  EXPECT_EQ(Value("3/4"), 0.75);
  EXPECT_EQ(Value("-3/4 of it"), -0.75);
  EXPECT_EQ(Value("1/2/2020"), 2020) << "a date";
  EXPECT_EQ(Value("5/0"), 0) << "no fraction: the last number is 0";
  EXPECT_EQ(Value(".5"), 0.5);
  EXPECT_EQ(Value("2.5e-3"), 0.0025);
  EXPECT_EQ(Value("1, 2, 3"), 3);
  EXPECT_EQ(Value("1,23"), 23);
  EXPECT_EQ(Value("12,345,67"), 67);
  EXPECT_EQ(Value("1.2.3"), 0.3) << "a version";
  EXPECT_EQ(Value("no number"), -999);
  EXPECT_EQ(Value(""), -999);
  EXPECT_EQ(Value("-"), -999);
}

TEST(NumericTest, ComparesTheLastNumbers) {
  EXPECT_EQ(*Numeric("I think 41, no: 42.", "#### 42"), 1.0);
  EXPECT_EQ(*Numeric("42 or 43", "42"), 0.0);
  EXPECT_EQ(*Numeric("nothing", "42"), 0.0);
  EXPECT_EQ(*Numeric("1,000", "1000"), 1.0);
  EXPECT_EQ(*Numeric("042", "42"), 1.0);
  EXPECT_EQ(*Numeric("-0", "0"), 1.0);
  EXPECT_EQ(*Numeric("0.75", "3/4"), 1.0);
  EXPECT_EQ(*Numeric("0.3333333", "1/3"), 1.0);
  EXPECT_EQ(*Numeric("0.33", "1/3"), 0.0);
  EXPECT_EQ(*Numeric("0.33", "1/3", {.tolerance = 0.01}), 1.0);
}

TEST(NumericTest, WholeNumbersMustBeEqual) {
  EXPECT_EQ(*Numeric("123456788", "123456789"), 0.0);
  EXPECT_EQ(*Numeric("123456789.0", "123456789"), 1.0);
  std::string huge(400, '9');
  EXPECT_EQ(*Numeric(huge, huge), 1.0);
  EXPECT_EQ(*Numeric(huge + "8", huge), 0.0);
  EXPECT_EQ(*Numeric(huge + ".5", huge), 0.0);
}

TEST(NumericTest, MayAskForNothingElse) {
  EXPECT_EQ(*Numeric(" -42\n", "-42", {.only_number = true}), 1.0);
  EXPECT_EQ(*Numeric("It is -42", "-42", {.only_number = true}), 0.0);
  EXPECT_EQ(*Numeric("-42.", "-42", {.only_number = true}), 0.0);
}

TEST(NumericTest, AnAnswerWithoutNumberIsAnError) {
  EXPECT_THAT(std::string(Numeric("1", "one").status().message()),
              HasSubstr("the answer 'one' holds no number"));
}

TEST(NumericTest, HugeTextTakesLinearTime) {
  EXPECT_EQ(*Numeric(std::string(1 << 20, '9'), "9"), 0.0);
  std::string commas;
  for (int i = 0; i < 250'000; ++i) commas += ",123";
  EXPECT_EQ(*Numeric("1" + commas, "9"), 0.0);
  EXPECT_EQ(*Numeric("1," + std::string(1 << 20, ',') + "12", "12"), 1.0);
}

}  // namespace
}  // namespace rein::reward
