// Whole jobs from a seed, in one process, on a virtual clock: crashes, freezes, lost, late and
// repeated messages. Some worlds have two groups of actors, each with its job, under one controller. REIN_SIMULATION_SEEDS and REIN_SIMULATION_FIRST choose other seeds.

#include <cstdlib>
#include <map>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/simulation/sim_world.h"

namespace rein::simulation {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  uint64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : fallback;
}

SimOptions OptionsOf(uint64_t seed) {
  SimOptions options{.seed = seed, .folder = absl::StrCat(testing::TempDir(), "/sim-", getpid())};
  options.staleness = seed % 4 == 3 ? 1 : 0;
  if (options.staleness > 0) options.when_stale = static_cast<v1::StalePolicy>(1 + seed / 4 % 3);
  options.drains = seed % 7 == 3;
  options.reference = seed % 3 == 1;
  options.texts = seed % 10 == 9;
  options.episodes = seed % 5 == 2;
  options.groups = seed % 6 == 4 ? 2 : 1;
  return options;
}

// The weights that the same job ends with when nothing goes wrong.
uint64_t UndisturbedDigest(SimOptions options) {
  options.faults = false;
  SimWorld world(options);
  EXPECT_EQ(world.Play(), "");
  return world.final_digest();
}

TEST(RunSimulationTest, AnUndisturbedJobSucceedsAndRepeatsItself) {
  for (uint64_t seed : {0, 1, 2, 3, 7, 9}) {
    SimOptions options = OptionsOf(seed);
    uint64_t digest = UndisturbedDigest(options);
    EXPECT_NE(digest, 0);
    if (options.staleness == 0) {
      EXPECT_EQ(UndisturbedDigest(OptionsOf(seed + 120)), digest) << seed;
    }
  }
}

TEST(RunSimulationTest, TheLedgerIsExactAfterAnyFaults) {
  const uint64_t seeds = FromEnvironment("REIN_SIMULATION_SEEDS", 1200);
  const uint64_t first = FromEnvironment("REIN_SIMULATION_FIRST", 1);
  std::map<std::tuple<bool, bool, bool>, uint64_t> undisturbed;  // by (reference, texts, episodes)
  int crashes = 0, restarts = 0;
  uint64_t trained_again = 0;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SimOptions options = OptionsOf(seed);
    auto [digest, added] =
        undisturbed.emplace(std::make_tuple(options.reference, options.texts, options.episodes), 0);
    if (added) {
      SimOptions calm = options;
      calm.staleness = 0;
      calm.groups = 1;
      digest->second = UndisturbedDigest(calm);
    }
    SimWorld world(options);
    ASSERT_EQ(world.Play(), "") << "seed " << seed << ": REIN_SIMULATION_FIRST=" << seed
                                << " REIN_SIMULATION_SEEDS=1 plays it again";
    for (int group = 0; group < options.groups && (options.staleness == 0 || options.texts); ++group) {
      ASSERT_EQ(world.final_digest(group), digest->second) << "other weights with seed " << seed << " in group " << group;
    }
    crashes += world.crashes();
    restarts += world.controller_starts() - 1;
    trained_again += world.truth().updates_made - 6;
  }
  // The faults did happen.
  if (seeds < 100) return;
  EXPECT_GT(crashes, static_cast<int>(seeds));
  EXPECT_GT(restarts, static_cast<int>(seeds) / 4);
  EXPECT_GT(trained_again, seeds / 10);
}

}  // namespace
}  // namespace rein::simulation
