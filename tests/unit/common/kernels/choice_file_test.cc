#include "common/kernels/choice_file.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

namespace rein::kernels {
namespace {

class ChoiceFileTest : public testing::Test {
 protected:
  ChoiceFileTest() { std::filesystem::remove_all(folder_); }

  const std::string folder_ = testing::TempDir() + "/choices";
  const ChoiceFile::Algorithm one_ = {1, 2, 3, 4, 5, 6, 7, ~0ull}, two_ = {9};
};

TEST_F(ChoiceFileTest, IsReadBackAndTheLastOfAKeyCounts) {
  ChoiceFile file(folder_, "NVIDIA H100 80GB/x");
  EXPECT_EQ(file.path(), folder_ + "/NVIDIA-H100-80GB-x.choices");
  EXPECT_EQ(file.Find("a 1"), std::nullopt);
  file.Add("a 1", one_);
  file.Add("b", one_);
  ChoiceFile(folder_, "NVIDIA H100 80GB/x").Add("b", two_);  // another process
  ChoiceFile again(folder_, "NVIDIA H100 80GB/x");
  EXPECT_EQ(again.Find("a 1"), one_);
  EXPECT_EQ(again.Find("b"), two_);
  EXPECT_EQ(ChoiceFile(folder_, "another GPU").Find("a 1"), std::nullopt);
}

TEST_F(ChoiceFileTest, PassesOverWhatIsDamaged) {
  ChoiceFile file(folder_, "gpu");
  for (const char* key : {"a", "b", "c"}) file.Add(key, one_);
  std::string text;
  {
    std::ifstream in(file.path());
    std::getline(in, text, '\0');
  }
  text[text.find("b|1 2") + 2] = '8';              // another algorithm
  text.resize(text.size() - 3);                    // half a line
  std::ofstream(file.path()) << text << "\nno line|\n||\n";
  ChoiceFile again(folder_, "gpu");
  EXPECT_EQ(again.Find("a"), one_);
  EXPECT_EQ(again.Find("b"), std::nullopt);
  EXPECT_EQ(again.Find("c"), std::nullopt);
}

TEST_F(ChoiceFileTest, WithoutAPlaceItRemembersForItself) {
  for (const std::string& folder : {std::string(), std::string("/proc/none")}) {
    ChoiceFile file(folder, "gpu");
    file.Add("a", one_);
    EXPECT_EQ(file.Find("a"), one_);
    EXPECT_EQ(ChoiceFile(folder, "gpu").Find("a"), std::nullopt);
  }
}

}  // namespace
}  // namespace rein::kernels
