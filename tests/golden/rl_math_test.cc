// Every formula of the golden vectors is offered, and every case is run by one of the families.

#include <gtest/gtest.h>

#include <set>

#include "tests/golden/golden_families.h"

namespace rein::trainer {
namespace {

TEST(RlMathGolden, EveryFunctionIsChecked) {
  std::set<std::string> checked, seen;
  for (const Checks* family : Families()) {
    for (const auto& [function, check] : *family) {
      EXPECT_TRUE(checked.insert(function).second) << function << " is checked twice";
    }
  }
  for (const GoldenCase& c : AllCases()) seen.insert(c.function());
  for (const std::string& function : seen) EXPECT_EQ(checked.count(function), 1u) << function;
}

TEST(RlMathGolden, Advantages) { RunChecks(AdvantageChecks()); }
TEST(RlMathGolden, KlAndAggregation) { RunChecks(AggregationChecks()); }
TEST(RlMathGolden, PolicyLosses) { RunChecks(PolicyChecks()); }
TEST(RlMathGolden, OffPolicy) { RunChecks(OffPolicyChecks()); }
TEST(RlMathGolden, ValuesAndPreferences) { RunChecks(PreferenceChecks()); }
TEST(RlMathGolden, Logits) { RunChecks(LogitChecks()); }

}  // namespace
}  // namespace rein::trainer
