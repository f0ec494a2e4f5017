// The table of answer_pairs.txt, what hostile answers cost, and what options change.

#include "reward/math/equivalence.h"

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <time.h>

#include "reward/math/parser.h"

namespace rein::reward::math {
namespace {

using ::testing::IsEmpty;

bool Same(absl::string_view right, absl::string_view answer,
          const EquivalenceOptions& options = {}) {
  return SameAnswer(ParseAnswer(right), ParseAnswer(answer), options);
}

struct Pair {
  std::string right, answer;
  bool same;
};

std::vector<Pair> Table() {
  std::vector<Pair> pairs;
  std::ifstream file("tests/unit/reward/math/answer_pairs.txt");
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line.front() == '#') continue;
    for (const char* sign : {" <=>", " <!>"}) {
      size_t at = line.find(sign);
      if (at == std::string::npos) continue;
      pairs.push_back(
          {line.substr(0, at), line.size() > at + 5 ? line.substr(at + 5) : "", sign[2] == '='});
    }
  }
  return pairs;
}

TEST(EquivalenceTest, TheTable) {
  std::vector<Pair> pairs = Table();
  std::vector<std::string> false_accepts, false_rejects;
  for (const Pair& pair : pairs) {
    bool same = Same(pair.right, pair.answer);
    if (same == pair.same) continue;
    (same ? false_accepts : false_rejects).push_back(absl::StrCat(pair.right, " | ", pair.answer));
  }
  EXPECT_GE(pairs.size(), 300u);
  EXPECT_THAT(false_accepts, IsEmpty());
  EXPECT_THAT(false_rejects, IsEmpty());
}

TEST(EquivalenceTest, AnAnswerIsItself) {
  for (const Pair& pair : Table()) {
    EXPECT_TRUE(Same(pair.right, pair.right)) << pair.right;
    if (pair.answer.empty()) continue;
    EXPECT_TRUE(Same(pair.answer, absl::StrCat(" ", pair.answer, " "))) << pair.answer;
  }
}

// Where two answers are the same, which of them is the right one does not matter.
TEST(EquivalenceTest, IsSymmetric) {
  for (const Pair& pair : Table()) {
    EXPECT_EQ(Same(pair.answer, pair.right), pair.same) << pair.answer << " | " << pair.right;
  }
}

TEST(EquivalenceTest, OptionsDecideAtTheEdge) {
  EXPECT_FALSE(Same("3.14159", "3.14"));
  EXPECT_TRUE(Same("3.14159", "3.14", {.tolerance = 1e-3}));
  EXPECT_FALSE(Same("1/3", "0.333333", {.tolerance = 0}));
  EXPECT_TRUE(Same("1/3", "0.\\overline{3}", {.tolerance = 0}));
  EXPECT_FALSE(Same("1000001", "1000000", {.tolerance = 0.1})) << "whole numbers are exact";
  EXPECT_TRUE(Same("5 \\text{ cm}", "5"));
  EXPECT_FALSE(Same("5 \\text{ cm}", "5", {.require_units = true}));
  EXPECT_TRUE(Same("5 \\text{ cm}", "50 mm", {.require_units = true}));
}

TEST(ParserTest, LimitsHold) {
  auto nested = [](int depth) {
    return absl::StrCat(std::string(depth, '('), "1", std::string(depth, ')'));
  };
  EXPECT_TRUE(Same("1", nested(8)));
  EXPECT_LT(ParseAnswer(nested(2000)).root, 0);
  std::string sum = "1";
  for (int i = 0; i < 1500; ++i) sum += "+x";
  EXPECT_LT(ParseAnswer(sum).nodes.size(), static_cast<size_t>(kMaxNodes) + 1);
  EXPECT_LT(ParseAnswer(std::string(5000, '1')).root, 0) << "longer than any answer";
  EXPECT_TRUE(Same(std::string(5000, '1'), std::string(5000, '1'))) << "still the same text";
  EXPECT_LT(ParseAnswer(std::string("1\0 2", 4)).root, 0);
}

// Of this thread: tests run beside each other.
double ProcessorSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// No answer may cost more than a few milliseconds, whatever it says; ten times that under
// sanitizers.
TEST(EquivalenceTest, HostileAnswersAreBounded) {
  std::vector<std::string> hostile = {"9^{9^{9^{9^9}}}",
                                      "2^{99999999999}",
                                      "99999999!",
                                      "\\binom{999999999}{500000000}",
                                      "((((1!)!)!)!)!",
                                      "1/0",
                                      "0^0",
                                      "\\sqrt{-1}^{\\sqrt{-1}}",
                                      "\\log 0",
                                      "\\tan\\frac{\\pi}{2}",
                                      "\\frac{1}{x-x}",
                                      std::string(4096, '('),
                                      std::string(4096, '{'),
                                      std::string(4096, '-') + "1",
                                      std::string(4096, '\\'),
                                      std::string(4000, '9'),
                                      "0." + std::string(4000, '3'),
                                      std::string(2000, '^'),
                                      "\\begin{pmatrix}",
                                      "|||||||1|||||||",
                                      "\\text{" + std::string(4000, '{')};
  auto repeat = [](absl::string_view part, int times) {
    return absl::StrJoin(std::vector<std::string>(times, std::string(part)), "");
  };
  hostile.push_back(repeat("\\frac{1}{", 60) + "x" + repeat("}", 60));
  hostile.push_back(repeat("\\sqrt{x+", 60) + "x" + repeat("}", 60));
  hostile.push_back(repeat("\\text{1", 500) + repeat("}", 500));
  hostile.push_back("\\{" + repeat("x^{10000}+\\sqrt{2},", 200) + "1\\}");
  hostile.push_back("\\{" + repeat("\\pm 1,", 600) + "1\\}");
  hostile.push_back(repeat("\\pm", 500) + "1");
  hostile.push_back(repeat("x^{9999}*", 400) + "x");
  hostile.push_back(repeat("\\sin ", 60) + "x");
  std::vector<std::string> rights = hostile;
  rights.push_back("\\frac{1}{2}");
  for (const std::string& right : rights) {
    for (const std::string& answer : hostile) {
      const double begin = ProcessorSeconds();
      Same(right, answer + " ");
      EXPECT_LT(ProcessorSeconds() - begin, 0.05)
          << right.substr(0, 60) << " | " << answer.substr(0, 60);
    }
  }
  EXPECT_FALSE(Same("9^{9^{9^9}}", "9^{9^{9^8}}")) << "what has no value is compared by spelling";
  EXPECT_TRUE(Same("9^{9^{9^9}}", "9^{9^{9^9}}"));
}

}  // namespace
}  // namespace rein::reward::math
