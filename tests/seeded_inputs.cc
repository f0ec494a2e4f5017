// Every test begins with LibTorch's generator seeded by Google Test's own seed, which is 0 unless --gtest_shuffle is given:
// a failure can be repeated, and no run fails by an unlucky draw of its own. tests/scatter draws many.

#include <ATen/Context.h>
#include <gtest/gtest.h>

namespace rein {
namespace {

class SeededInputs : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo&) override {
    at::manual_seed(static_cast<uint64_t>(testing::UnitTest::GetInstance()->random_seed()));
  }
};

[[maybe_unused]] const bool registered = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new SeededInputs);
  return true;
}();

}  // namespace
}  // namespace rein
