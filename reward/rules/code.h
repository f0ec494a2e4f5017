// Code runs the program of a completion against test cases, in a sandbox, and compares what it
// prints outside of it.
//
// The program never sees what is expected, its exit status alone proves nothing, and each test is a
// fresh sandbox: there is nothing to overwrite, to read or to print that would pass a test, but the
// right output. Test cases as in APPS (arXiv 2105.09938), TACO and LiveCodeBench (arXiv
// 2403.07974).

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "rein/v1/reward.pb.h"
#include "reward/rules/rule.h"
#include "reward/sandbox/sandbox.h"

namespace rein::reward {

struct CodeOptions {
  std::string tests = "tests";       // column
  std::vector<std::string> command;  // empty: Python
  std::vector<std::string> build;    // empty: none
  bool share = false;                // the score is the share of tests that pass
  sandbox::Limits limits;            // of one test
  absl::Duration all_tests = absl::Seconds(9);
  double tolerance = 0;  // relative, of numbers in the output
};

// The note of a score below 1 says which test failed and how, and which system calls were refused.
// INVALID_ARGUMENT for a prompt whose column holds no test cases; what the program does is never an
// error.
absl::StatusOr<Verdict> Code(const v1::RewardItem& item, const CodeOptions& options,
                             const sandbox::Sandbox& sandbox);

// Equal but for white space at line ends and empty lines at the end; with a tolerance, also when
// both have as many words, and those that differ are numbers close to each other.
bool SameOutput(absl::string_view actual, absl::string_view wanted, double tolerance);

}  // namespace rein::reward
