#include "reward/rules/test_cases.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::reward {
namespace {

using nlohmann::json;

constexpr size_t kMaxCases = 1000;

absl::Status Wrong(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("the tests ", what));
}

// A list of lines counts as text, as some datasets have it.
absl::StatusOr<std::string> Text(const json& value, size_t index) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array())
    return Wrong(absl::StrCat("[", index, "] hold no text: ", value.dump().substr(0, 60)));
  std::string text;
  for (const json& line : value) {
    if (!line.is_string())
      return Wrong(absl::StrCat("[", index, "] hold no text: ", value.dump().substr(0, 60)));
    absl::StrAppend(&text, line.get<std::string>(), "\n");
  }
  return text;
}

absl::StatusOr<json> Value(const json& value) {
  if (!value.is_string()) return value;
  absl::StatusOr<json> parsed = rein::json::ParseJson(value.get<std::string>());
  return parsed.ok() ? parsed : value;
}

absl::StatusOr<TestCase> FunctionCase(const json& input, const json& output, size_t index) {
  json arguments = input;
  if (input.is_string()) {
    arguments = json::array();
    for (absl::string_view line :
         absl::StrSplit(input.get<std::string>(), '\n', absl::SkipWhitespace())) {
      absl::StatusOr<json> argument = rein::json::ParseJson(std::string(line));
      if (!argument.ok())
        return Wrong(absl::StrCat(
            "[", index, "] hold an argument that is no JSON: ", std::string(line.substr(0, 60))));
      arguments.push_back(*std::move(argument));
    }
  }
  if (!arguments.is_array()) return Wrong(absl::StrCat("[", index, "] hold no list of arguments"));
  TestCase test;
  test.input = arguments.dump();
  REIN_ASSIGN_OR_RETURN(test.returns, Value(output));
  return test;
}

absl::StatusOr<TestCase> Case(const json& input, const json& output, bool function, size_t index) {
  if (function) return FunctionCase(input, output, index);
  TestCase test;
  REIN_ASSIGN_OR_RETURN(test.input, Text(input, index));
  REIN_ASSIGN_OR_RETURN(test.output, Text(output, index));
  return test;
}

}  // namespace

absl::StatusOr<TestCases> ReadTestCases(const json& column) {
  TestCases tests;
  json pairs = json::array();
  if (column.is_object()) {
    const json inputs = column.value("inputs", json()), outputs = column.value("outputs", json());
    if (!inputs.is_array() || !outputs.is_array() || inputs.size() != outputs.size()) {
      return Wrong("want as many inputs as outputs, both lists");
    }
    const json name = column.value("fn_name", json());
    if (name.is_string()) tests.function = name.get<std::string>();
    for (size_t i = 0; i < inputs.size(); ++i)
      pairs.push_back({{"input", inputs[i]}, {"output", outputs[i]}});
  } else {
    pairs = column;
  }
  if (!pairs.is_array() || pairs.empty())
    return Wrong("are neither a list of {input, output} nor {inputs, outputs}");
  if (pairs.size() > kMaxCases)
    return Wrong(absl::StrCat("are ", pairs.size(), ", at most ", kMaxCases));
  for (char c : tests.function) {
    if (!absl::ascii_isalnum(c) && c != '_')
      return Wrong(absl::StrCat("name a function '", tests.function, "'"));
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (!pairs[i].is_object() || !pairs[i].contains("input") || !pairs[i].contains("output")) {
      return Wrong(absl::StrCat("[", i, "] lack input or output"));
    }
    REIN_ASSIGN_OR_RETURN(TestCase test,
                          Case(pairs[i]["input"], pairs[i]["output"], !tests.function.empty(), i));
    tests.cases.push_back(std::move(test));
  }
  return tests;
}

}  // namespace rein::reward
