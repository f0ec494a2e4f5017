#include "common/data/data_order.h"

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::data {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::UnorderedElementsAreArray;

TEST(PermutationTest, HoldsEachNumberOnce) {
  std::vector<uint64_t> all(1000);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_THAT(Permutation(1000, 1, 0), UnorderedElementsAreArray(all));
  EXPECT_THAT(Permutation(1, 1, 0), ElementsAre(0));
}

TEST(PermutationTest, DependsOnSeedAndEpoch) {
  EXPECT_EQ(Permutation(100, 1, 0), Permutation(100, 1, 0));
  EXPECT_NE(Permutation(100, 1, 0), Permutation(100, 1, 1));
  EXPECT_NE(Permutation(100, 1, 0), Permutation(100, 2, 0));
}

// Chi-squared of where prompt 0 lands, 9 degrees of freedom: above 33.7 in one of 10,000 tries.
TEST(PermutationTest, IsUniform) {
  std::vector<int> places(10);
  for (uint64_t seed = 0; seed < 10'000; ++seed) {
    std::vector<uint64_t> order = Permutation(10, seed, 3);
    for (size_t i = 0; i < order.size(); ++i) places[i] += order[i] == 0;
  }
  double chi_squared = 0;
  for (int count : places) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_squared, 33.7);
}

TEST(DataOrderTest, ACursorResumes) {
  DataOrder first(5, /*shuffle=*/true, /*seed=*/7);
  std::vector<uint64_t> whole;
  Cursor cursor;
  Cursor middle;
  for (int i = 0; i < 12; ++i, cursor = first.Next(cursor)) {
    if (i == 8) middle = cursor;
    whole.push_back(first.PromptAt(cursor));
  }
  EXPECT_EQ(middle, (Cursor{1, 3}));
  DataOrder second(5, true, 7);
  std::vector<uint64_t> rest;
  for (int i = 8; i < 12; ++i, middle = second.Next(middle))
    rest.push_back(second.PromptAt(middle));
  EXPECT_THAT(rest, ElementsAreArray(whole.begin() + 8, whole.end()));
}

TEST(DataOrderTest, FileOrderWithoutShuffle) {
  DataOrder order(3, /*shuffle=*/false, 7);
  EXPECT_EQ(order.PromptAt({0, 2}), 2u);
  EXPECT_EQ(order.Next({0, 2}), (Cursor{1, 0}));
}

}  // namespace
}  // namespace rein::data
