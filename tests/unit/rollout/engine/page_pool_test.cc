#include "rollout/engine/page_pool.h"

#include <numeric>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::rollout {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr PolicyVersion kVersion = {1, 4};

std::vector<uint32_t> Tokens(uint32_t count, uint32_t first = 0) {
  std::vector<uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(PagePoolTest, HandsOutEveryPageButTheFirst) {
  PagePool pool(/*pages=*/4, /*page_tokens=*/2, /*remember=*/true);
  EXPECT_EQ(pool.capacity(), 3);
  std::set<int32_t> taken = {*pool.Take(), *pool.Take(), *pool.Take()};
  EXPECT_THAT(taken, ElementsAre(1, 2, 3));
  EXPECT_EQ(pool.Take(), std::nullopt);
  pool.Release(2);
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(pool.Take(), 2);
}

TEST(PagePoolTest, APageIsFreeWhenItsLastUserLeaves) {
  PagePool pool(4, 2, true);
  int32_t page = *pool.Take();
  pool.Share(page);
  EXPECT_EQ(pool.CountOwn({page}), 0);
  pool.Release(page);
  EXPECT_EQ(pool.CountOwn({page}), 1);
  EXPECT_EQ(pool.available(), 2);
  pool.Release(page);
  EXPECT_EQ(pool.available(), 3);
}

TEST(PagePoolTest, FindsWhatIsRemembered) {
  PagePool pool(8, 2, true);
  std::vector<uint32_t> tokens = Tokens(5);
  int32_t first = *pool.Take(), second = *pool.Take();
  pool.Remember(first, kVersion, tokens, 0);
  pool.Remember(second, kVersion, tokens, 1);
  EXPECT_THAT(pool.Match(kVersion, tokens), ElementsAre(first, second));
  EXPECT_THAT(pool.Match(kVersion, Tokens(3)), ElementsAre(first)) << "whole pages only";
  EXPECT_THAT(pool.Match(kVersion, Tokens(1)), IsEmpty());
  EXPECT_THAT(pool.Match(kVersion, Tokens(4, 1)), IsEmpty()) << "other tokens";
  EXPECT_THAT(pool.Match({1, 5}, tokens), IsEmpty()) << "another policy version";
  EXPECT_THAT(pool.Match({2, 4}, tokens), IsEmpty()) << "another lineage";
  std::vector<uint32_t> other_start = {9, 9, 2, 3};
  EXPECT_THAT(pool.Match(kVersion, other_start), IsEmpty()) << "another beginning";
}

TEST(PagePoolTest, UnusedRememberedPagesAreReusedOrGivenAway) {
  PagePool pool(4, 2, true);
  std::vector<uint32_t> a = Tokens(2, 10), b = Tokens(2, 20), c = Tokens(2, 30);
  for (const auto* tokens : {&a, &b, &c}) {
    int32_t page = *pool.Take();
    pool.Remember(page, kVersion, *tokens, 0);
    pool.Release(page);
  }
  EXPECT_EQ(pool.available(), 3);
  std::vector<int32_t> match = pool.Match(kVersion, a);
  ASSERT_EQ(match.size(), 1u);
  EXPECT_EQ(pool.CountUnused(match), 1);
  pool.Share(match[0]);
  pool.Release(match[0]);  // now the most recently used
  ASSERT_TRUE(pool.Take().has_value());
  EXPECT_THAT(pool.Match(kVersion, b), IsEmpty()) << "the least recently used went";
  EXPECT_EQ(pool.Match(kVersion, a).size(), 1u);
  EXPECT_EQ(pool.Match(kVersion, c).size(), 1u);
}

TEST(PagePoolTest, ForgetsAllButWhoUsesWhat) {
  PagePool pool(4, 2, true);
  std::vector<uint32_t> a = Tokens(2, 10), b = Tokens(2, 20);
  int32_t used = *pool.Take(), unused = *pool.Take();
  pool.Remember(used, kVersion, a, 0);
  pool.Remember(unused, kVersion, b, 0);
  pool.Release(unused);
  pool.Forget();
  EXPECT_THAT(pool.Match(kVersion, a), IsEmpty());
  EXPECT_THAT(pool.Match(kVersion, b), IsEmpty());
  EXPECT_EQ(pool.available(), 2);
  pool.Release(used);
  EXPECT_EQ(pool.available(), 3);
}

TEST(PagePoolTest, MayBeToldNotToRemember) {
  PagePool pool(4, 2, /*remember=*/false);
  int32_t page = *pool.Take();
  pool.Remember(page, kVersion, Tokens(2), 0);
  EXPECT_THAT(pool.Match(kVersion, Tokens(2)), IsEmpty());
}

// Random users against a plain count: no page is lost, none is handed out twice.
TEST(PagePoolTest, NoPageIsLostOrDoubled) {
  PagePool pool(32, 4, true);
  std::mt19937 random(1);
  std::vector<std::vector<int32_t>> users;
  for (int round = 0; round < 5000; ++round) {
    if (random() % 2 == 0 && pool.available() > 0) {
      std::vector<uint32_t> tokens = Tokens(4 * (1 + random() % 3), random() % 5);
      std::vector<int32_t> pages = pool.Match(kVersion, tokens);
      for (int32_t page : pages) pool.Share(page);
      while (pages.size() * 4 < tokens.size()) {
        std::optional<int32_t> page = pool.Take();
        if (!page.has_value()) break;
        pages.push_back(*page);
        pool.Remember(*page, kVersion, tokens, static_cast<int32_t>(pages.size()) - 1);
      }
      users.push_back(pages);
    } else if (!users.empty()) {
      std::swap(users[random() % users.size()], users.back());
      for (int32_t page : users.back()) pool.Release(page);
      users.pop_back();
    }
    if (random() % 500 == 0) pool.Forget();
    std::set<int32_t> used;
    for (const auto& pages : users) used.insert(pages.begin(), pages.end());
    ASSERT_EQ(pool.available(), pool.capacity() - static_cast<int32_t>(used.size()));
  }
}

}  // namespace
}  // namespace rein::rollout
