// The test cases that a dataset's column holds.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

namespace rein::reward {

struct TestCase {
  std::string input;       // standard input; for a function: the JSON list of its arguments
  std::string output;      // standard output
  nlohmann::json returns;  // what the function returns
};

struct TestCases {
  std::string function;  // empty: programs that read and print
  std::vector<TestCase> cases;
};

// [{input, output}, ...] or {inputs: [...], outputs: [...], fn_name?}; texts, or for a function
// values (or LiveCodeBench's texts: one JSON value a line). INVALID_ARGUMENT says what is wrong.
absl::StatusOr<TestCases> ReadTestCases(const nlohmann::json& column);

}  // namespace rein::reward
