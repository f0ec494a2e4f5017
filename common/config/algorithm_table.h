// The algorithms that a job can name, as the schema tells them.

#pragma once

#include <string>

namespace rein::config {

// `rein explain algorithms`: each with its formula, the defaults that it sets, its source and where public
// implementations differ.
std::string ExplainAlgorithms();

// The same as rows of a Markdown table, for the README.
std::string AlgorithmTable();

}  // namespace rein::config
