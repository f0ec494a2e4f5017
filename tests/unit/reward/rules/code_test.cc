#include "reward/rules/code.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/json/parse_json.h"
#include "reward/rules/test_cases.h"

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

constexpr char kDoubles[] =
    R"({"tests": [{"input": "3\n", "output": "6\n"}, {"input": "21", "output": "42"}]})";
constexpr char kFunction[] =
    R"({"tests": {"fn_name": "double", "inputs": [[3], [21]], "outputs": [6, 42]}})";

class CodeTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<sandbox::Sandbox> sandbox = sandbox::Sandbox::Open({});
    if (!sandbox.ok()) GTEST_SKIP() << "NOT tried: " << sandbox.status();
    if (access("/usr/bin/python3", X_OK) != 0) GTEST_SKIP() << "NOT tried: no /usr/bin/python3";
    sandbox_ = *sandbox;
    options_.limits.processor = absl::Seconds(2);
    options_.limits.wall = absl::Seconds(4);
  }

  absl::StatusOr<Verdict> Score(const std::string& program, const std::string& columns = kDoubles) {
    v1::RewardItem item;
    item.mutable_completion()->set_text(program);
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(columns, item.mutable_columns()).ok())
        << columns;
    return Code(item, options_, *sandbox_);
  }

  // A trick earns nothing, whether the tests read output or call a function.
  void Nothing(const std::string& trick, const std::string& columns = kDoubles) {
    absl::StatusOr<Verdict> verdict = Score(trick, columns);
    ASSERT_TRUE(verdict.ok()) << verdict.status();
    EXPECT_EQ(verdict->score, 0) << trick;
    EXPECT_NE(verdict->note, "") << trick << ": told why";
  }

  std::optional<sandbox::Sandbox> sandbox_;
  CodeOptions options_ = {.all_tests = absl::Seconds(20)};
};

TEST_F(CodeTest, RightProgramsPass) {
  EXPECT_EQ(Score("print(2 * int(input()))")->score, 1);
  EXPECT_EQ(Score(" print(2 * int(input()))\n")->score, 1) << "a first token with its space";
  EXPECT_EQ(Score("Like this:\n```python\nn = int(input())\nprint(n + n)  \n\n```\nDone.")->score,
            1);
  EXPECT_EQ(Score("def double(n):\n    print('noise')\n    return 2 * n\n", kFunction)->score, 1);
  EXPECT_EQ(
      Score("class Solution:\n    def double(self, n):\n        return n * 2\n", kFunction)->score,
      1);
  EXPECT_EQ(
      Score(
          "def double(n): return [n, {'a': (1, 2.5)}]",
          R"({"tests": {"fn_name": "double", "inputs": ["3"], "outputs": ["[3, {\"a\": [1, 2.5]}]"]}})")
          ->score,
      1)
      << "texts of JSON, as LiveCodeBench has them";
  EXPECT_EQ(
      Score("print(input())", R"({"tests": "[{\"input\": \"a\", \"output\": \"a\"}]"})")->score, 1)
      << "a column of text";
}

TEST_F(CodeTest, WrongProgramsDoNotAndSayWhy) {
  Verdict wrong = *Score("print(6)");
  EXPECT_EQ(wrong.score, 0);
  EXPECT_EQ(wrong.note, "test 2 of 2: printed '6\\n'");
  EXPECT_THAT(Score("def f(:")->note, HasSubstr("test 1 of 2: exit status 1: SyntaxError"));
  EXPECT_THAT(Score("def double(n): return 6", kFunction)->note,
              HasSubstr("test 2 of 2: returned 6"));
  EXPECT_THAT(Score("x = 1", kFunction)->note, HasSubstr("exit status 1"));
  EXPECT_THAT(Score("import _socket\n_socket.socket()")->note, HasSubstr("refused: socket"));
  EXPECT_THAT(Score("")->note, HasSubstr("printed ''"));
  options_.share = true;
  EXPECT_EQ(Score("print(6)")->score, 0.5);
  EXPECT_EQ(Score("print(6)")->note, "test 2 of 2: printed '6\\n'");
}

// Ways in which policies were seen to fake a pass.
TEST_F(CodeTest, TricksEarnNothing) {
  for (const char* columns : {kDoubles, kFunction}) {
    Nothing("import sys; sys.exit(0)", columns);
    Nothing("import os; os._exit(0)", columns);
    Nothing("import atexit, os\natexit.register(lambda: (print('6'), os._exit(0)))", columns);
    Nothing("print('PASS'); print('OK'); print('1.0'); print('result-00000000: 6')", columns);
    Nothing("for name in ('result', 'output', 'score', 'reward'): open(name, 'w').write('1')",
            columns);
    Nothing("open('conftest.py', 'w').write('def pytest_runtest_makereport(item, call): pass')",
            columns);
    Nothing(
        "import os, signal\nfor p in (os.getppid(), 1, -1):\n    try: os.kill(p, signal.SIGKILL)\n "
        "   except OSError: pass",
        columns);
    Nothing("import time\nwhile True: time.sleep(1)", columns);
    Nothing(
        "import time\ntime.time = time.monotonic = time.perf_counter = lambda: 0\nwhile True: pass",
        columns);
    Nothing(
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'1')\n    except OSError: pass",
        columns);
  }
  Nothing("for i in range(100): print(i)");
  // Equal to everything, in the program's own eyes.
  Nothing(
      "class T(str):\n    def __eq__(self, other): return True\n    def __ne__(self, other): "
      "return False\n    __hash__ = str.__hash__\n"
      "def double(n): return T('x')",
      kFunction);
  Nothing(
      "class T(int):\n    def __eq__(self, other): return True\n    def __ne__(self, other): "
      "return False\n    __hash__ = int.__hash__\n"
      "def double(n): return T(5)",
      kFunction);
  Nothing("class T:\n    def __eq__(self, other): return True\ndef double(n): return T()",
          kFunction);
  // The driver's own tools.
  Nothing("import json\njson.dumps = lambda value: 'true'\ndef double(n): return n", kFunction);
  Nothing(
      "import sys\ndef double(n):\n    word = sys._getframe(1).f_globals['request']['word']\n    "
      "for i in range(100): print(word + str(i))\n    return 1",
      kFunction);
  Nothing(
      "import sys, gc\ndef double(n):\n    found = [o for o in gc.get_objects() if isinstance(o, "
      "dict) and 'outputs' in o]\n"
      "    return found[0]['outputs'] if found else sorted(sys._getframe(1).f_globals['request'])",
      kFunction);
  Nothing(
      "import os\ndef double(n):\n    open('main', 'w').write('print(6)')\n    return "
      "[open(f).read() for f in os.listdir('.')]",
      kFunction);
}

TEST_F(CodeTest, TimeIsBoundedOverAllTests) {
  options_.all_tests = absl::Seconds(4);
  const absl::Time begin = absl::Now();
  Verdict slow = *Score("import time; time.sleep(2.2); print(2 * int(input()))");  // Python itself takes its time to start
  EXPECT_LT(absl::Now() - begin, absl::Seconds(12));
  EXPECT_EQ(slow.score, 0);
  EXPECT_THAT(slow.note, HasSubstr("test 2 of 2: took too long"));
}

TEST_F(CodeTest, OtherLanguagesAreBuiltOnce) {
  if (access("/usr/bin/g++", X_OK) != 0) GTEST_SKIP() << "NOT tried: no /usr/bin/g++";
  options_.build = {"g++", "-O1", "-x", "c++", "main", "-o", "program"};
  options_.command = {"program"};
  options_.all_tests = absl::Seconds(60);
  EXPECT_EQ(Score("```cpp\n#include <iostream>\nint main() { int n; std::cin >> n; std::cout << 2 "
                  "* n << std::endl; }\n```")
                ->score,
            1);
  EXPECT_THAT(Score("int main() { return x; }")->note, HasSubstr("build: exit status 1"));
}

TEST_F(CodeTest, BadTestsAreErrorsOfTheirPrompt) {
  auto error = [&](const std::string& columns) {
    return std::string(Score("", columns).status().message());
  };
  EXPECT_THAT(error("{}"), HasSubstr("the prompt has no column tests"));
  EXPECT_THAT(error(R"({"tests": "["})"), HasSubstr("unexpected end of input"));
  EXPECT_THAT(error(R"({"tests": []})"), HasSubstr("the tests are neither a list"));
  EXPECT_THAT(error(R"({"tests": [{"input": "1"}]})"), HasSubstr("[0] lack input or output"));
  EXPECT_THAT(error(R"({"tests": [{"input": 1, "output": "1"}]})"),
              HasSubstr("[0] hold no text: 1"));
  EXPECT_THAT(error(R"({"tests": {"inputs": ["1"], "outputs": []}})"),
              HasSubstr("want as many inputs as outputs"));
  EXPECT_THAT(error(R"({"tests": {"fn_name": "f;x", "inputs": [[1]], "outputs": [1]}})"),
              HasSubstr("name a function 'f;x'"));
  EXPECT_THAT(error(R"({"tests": {"fn_name": "f", "inputs": ["x y"], "outputs": [1]}})"),
              HasSubstr("hold an argument that is no JSON: x y"));
  EXPECT_THAT(error(R"({"tests": {"fn_name": "f", "inputs": [1], "outputs": [1]}})"),
              HasSubstr("hold no list of arguments"));
  options_.command = {"program"};
  EXPECT_THAT(error(kFunction),
              HasSubstr("the tests call a function of Python, and another command is set"));
}

TEST(SameOutputTest, WhiteSpaceAndTolerance) {
  EXPECT_TRUE(SameOutput("1 2\n", "1 2", 0));
  EXPECT_TRUE(SameOutput("1 2  \r\n\n\n", "1 2\n", 0));
  EXPECT_FALSE(SameOutput("1  2", "1 2", 0));
  EXPECT_FALSE(SameOutput("1\n2", "1 2", 0));
  EXPECT_FALSE(SameOutput("", "1", 0));
  EXPECT_FALSE(SameOutput("0.3333333", "0.3333334", 0));
  EXPECT_TRUE(SameOutput("x 0.3333333", "x 0.3333334", 1e-6));
  EXPECT_FALSE(SameOutput("y 0.3333333", "x 0.3333334", 1e-6));
  EXPECT_FALSE(SameOutput("0.3", "0.4", 1e-6));
  EXPECT_FALSE(SameOutput("nan", "1", 1e-6));
}

}  // namespace
}  // namespace rein::reward
