#include "reward/rules/code.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

#include "common/json/parse_json.h"
#include "common/status/status_macros.h"
#include "reward/rules/columns.h"
#include "reward/rules/fenced_block.h"
#include "reward/rules/test_cases.h"

namespace rein::reward {
namespace {

constexpr char kMain[] = "main", kSolution[] = "solution";
// Calls the function of a solution and prints what it returns behind a word that changes with each
// run. The solution may learn the word: what it then prints must still be right.
constexpr char kDriver[] = R"(import json, sys
request = json.loads(sys.stdin.read())
names = {"__name__": "solution"}
exec(compile(open("solution").read(), "solution", "exec"), names)
function = names.get(request["name"]) or getattr(names["Solution"](), request["name"])
result = json.dumps(function(*request["arguments"]))
sys.stdout.write("\n" + request["word"] + result + "\n")
)";

std::string Word() {
  std::random_device device;
  return absl::StrCat("result-", absl::Hex(device(), absl::kZeroPad8),
                      absl::Hex(device(), absl::kZeroPad8), ":");
}

std::vector<absl::string_view> Lines(absl::string_view text) {
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  for (absl::string_view& line : lines) line = absl::StripTrailingAsciiWhitespace(line);
  while (!lines.empty() && lines.back().empty()) lines.pop_back();
  return lines;
}

bool Near(double actual, double wanted, double tolerance) {
  return std::abs(actual - wanted) <= tolerance * std::max(1.0, std::abs(wanted));
}

bool SameValue(const nlohmann::json& actual, const nlohmann::json& wanted, double tolerance) {
  if (actual == wanted) return true;
  if (actual.is_number() && wanted.is_number())
    return Near(actual.get<double>(), wanted.get<double>(), tolerance);
  if (actual.type() != wanted.type() || actual.size() != wanted.size() || !actual.is_structured())
    return false;
  for (auto a = actual.begin(), w = wanted.begin(); a != actual.end(); ++a, ++w) {
    if (actual.is_object() && a.key() != w.key()) return false;
    if (!SameValue(*a, *w, tolerance)) return false;
  }
  return true;
}

// What a test showed: "" when it passed.
std::string HowItEnded(const sandbox::Outcome& outcome) {
  switch (outcome.end) {
    case sandbox::End::kTooLong:
      return "took too long";
    case sandbox::End::kTooLoud:
      return "printed too much";
    case sandbox::End::kKilled:
      return absl::StrCat("killed by signal ", outcome.code);
    case sandbox::End::kExited:
      break;
  }
  if (outcome.code == 0) return "";
  std::vector<absl::string_view> lines = Lines(outcome.errors);
  return absl::StrCat("exit status ", outcome.code, lines.empty() ? "" : ": ",
                      lines.empty() ? "" : lines.back().substr(0, 160));
}

// One completion's program with all that its tests share.
class Judge {
 public:
  Judge(const CodeOptions& options, const sandbox::Sandbox& sandbox, const TestCases& tests)
      : options_(options),
        sandbox_(sandbox),
        tests_(tests),
        deadline_(absl::Now() + options.all_tests) {}

  absl::StatusOr<Verdict> Score(absl::string_view source) {
    REIN_ASSIGN_OR_RETURN(std::string wrong, Prepare(source));
    if (!wrong.empty()) return Told(0, absl::StrCat("build: ", wrong));
    size_t passed = 0;
    std::string note;
    for (size_t i = 0; i < tests_.cases.size(); ++i) {
      REIN_ASSIGN_OR_RETURN(wrong, RunTest(tests_.cases[i]));
      passed += wrong.empty() ? 1 : 0;
      if (!wrong.empty() && note.empty()) {
        note = absl::StrCat("test ", i + 1, " of ", tests_.cases.size(), ": ", wrong);
      }
      if (!wrong.empty() && !options_.share) break;
    }
    const double share = static_cast<double>(passed) / static_cast<double>(tests_.cases.size());
    const bool all = passed == tests_.cases.size();
    return Told(options_.share ? share : all ? 1.0 : 0.0, note);
  }

 private:
  // Puts the files of every test together; what is wrong with the build, if anything.
  absl::StatusOr<std::string> Prepare(absl::string_view source) {
    const bool function = !tests_.function.empty();
    program_.files[function ? kSolution : kMain] = std::string(source);
    if (function) program_.files[kMain] = kDriver;
    program_.command = options_.command.empty()
                           ? std::vector<std::string>{"python3", "-I", "-S", kMain}
                           : options_.command;
    if (options_.build.empty()) return std::string();
    sandbox::Program build = program_;
    build.command = options_.build;
    for (const std::string& word : program_.command) {
      const bool plain =
          !word.empty() && word.find('/') == std::string::npos && word.front() != '-';
      if (plain && word != kMain) build.keep.push_back(word);
    }
    build.limits = options_.limits;
    build.limits.processor = build.limits.wall =
        std::max(deadline_ - absl::Now(), absl::Seconds(1));
    REIN_ASSIGN_OR_RETURN(sandbox::Outcome outcome, sandbox_.Run(build));
    Note(outcome);
    for (auto& [name, content] : outcome.files) program_.files[name] = std::move(content);
    return HowItEnded(outcome);
  }

  absl::StatusOr<std::string> RunTest(const TestCase& test) {
    const absl::Duration left = deadline_ - absl::Now();
    if (left <= absl::ZeroDuration()) return std::string("no time left for it");
    const std::string word = tests_.function.empty() ? "" : Word();
    program_.input = test.input;
    if (!word.empty()) {
      program_.input = absl::StrCat("{\"name\": \"", tests_.function, "\", \"word\": \"", word,
                                    "\", \"arguments\": ", test.input, "}");
    }
    program_.limits = options_.limits;
    program_.limits.wall = std::min(program_.limits.wall, left);
    REIN_ASSIGN_OR_RETURN(sandbox::Outcome outcome, sandbox_.Run(program_));
    Note(outcome);
    std::string wrong = HowItEnded(outcome);
    if (!wrong.empty()) return wrong;
    return word.empty() ? WrongOutput(outcome.output, test)
                        : WrongResult(outcome.output, word, test);
  }

  std::string WrongOutput(const std::string& output, const TestCase& test) const {
    if (SameOutput(output, test.output, options_.tolerance)) return "";
    return absl::StrCat("printed '", absl::StrReplaceAll(output.substr(0, 80), {{"\n", "\\n"}}),
                        "'");
  }

  std::string WrongResult(const std::string& output, const std::string& word,
                          const TestCase& test) const {
    std::vector<absl::string_view> results;
    for (absl::string_view line : Lines(output)) {
      if (absl::StartsWith(line, word)) results.push_back(line.substr(word.size()));
    }
    if (results.size() != 1) return absl::StrCat("gave ", results.size(), " results");
    absl::StatusOr<nlohmann::json> value = json::ParseJson(std::string(results[0]));
    if (value.ok() && SameValue(*value, test.returns, options_.tolerance)) return "";
    return absl::StrCat("returned ", results[0].substr(0, 80));
  }

  void Note(const sandbox::Outcome& outcome) {
    for (const std::string& name : outcome.refused) {
      if (std::find(refused_.begin(), refused_.end(), name) == refused_.end())
        refused_.push_back(name);
    }
  }

  // With what the sandbox refused.
  Verdict Told(double score, const std::string& note) const {
    Verdict verdict(score, note);
    verdict.refused = !refused_.empty();
    if (verdict.refused) {
      absl::StrAppend(&verdict.note, note.empty() ? "" : "; ",
                      "refused: ", absl::StrJoin(refused_, ", "));
    }
    return verdict;
  }

  const CodeOptions& options_;
  const sandbox::Sandbox& sandbox_;
  const TestCases& tests_;
  const absl::Time deadline_;
  sandbox::Program program_;
  std::vector<std::string> refused_;
};

}  // namespace

bool SameOutput(absl::string_view actual, absl::string_view wanted, double tolerance) {
  std::vector<absl::string_view> a = Lines(actual), w = Lines(wanted);
  if (a == w) return true;
  if (tolerance <= 0 || a.size() != w.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    std::vector<absl::string_view> x = absl::StrSplit(a[i], ' ', absl::SkipEmpty()),
                                   y = absl::StrSplit(w[i], ' ', absl::SkipEmpty());
    if (x.size() != y.size()) return false;
    for (size_t j = 0; j < x.size(); ++j) {
      double p = 0, q = 0;
      if (x[j] == y[j]) continue;
      if (!absl::SimpleAtod(x[j], &p) || !absl::SimpleAtod(y[j], &q) || !Near(p, q, tolerance))
        return false;
    }
  }
  return true;
}

absl::StatusOr<Verdict> Code(const v1::RewardItem& item, const CodeOptions& options,
                             const sandbox::Sandbox& sandbox) {
  const google::protobuf::Value* column = FindColumn(item.columns(), options.tests);
  if (column == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("the prompt has no column ", options.tests));
  REIN_ASSIGN_OR_RETURN(nlohmann::json json, ColumnJson(*column));
  REIN_ASSIGN_OR_RETURN(TestCases tests, ReadTestCases(json));
  if (!tests.function.empty() && !options.command.empty()) {
    return absl::InvalidArgumentError(
        "the tests call a function of Python, and another command is set");
  }
  absl::string_view text = item.completion().text();
  return Judge(options, sandbox, tests)
      .Score(LastFencedBlock(text).value_or(absl::StripAsciiWhitespace(text)));
}

}  // namespace rein::reward
