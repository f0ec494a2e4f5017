#include "common/random/philox.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::random {
namespace {

using ::testing::ElementsAre;

// Known answers of Random123 1.14 (kat_vectors, philox4x32 with 10 rounds).
TEST(PhiloxTest, GivesTheKnownAnswers) {
  EXPECT_THAT(Philox({0, 0, 0, 0}, 0), ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PhiloxTest, DerivedKeysDiffer) {
  std::set<uint64_t> keys;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (uint64_t name = 0; name < 50; ++name) keys.insert(DeriveKey(seed, name));
  }
  EXPECT_EQ(keys.size(), 2500u);
}

}  // namespace
}  // namespace rein::random
