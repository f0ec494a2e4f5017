// The axes that policy-gradient algorithms are composed of: what each value of each axis computes, its source, and where
// public implementations differ. The presets (algorithm_table.h) choose among them.

#pragma once

#include <string>
#include <vector>

namespace rein::config {

struct AxisValue {
  std::string key;    // below the preset: advantage, kl.estimator, clip
  std::string value;  // of an enum; empty where the key itself is the choice
  std::string formula;
  std::string source;
  std::string peers;  // may be empty
};

const std::vector<AxisValue>& AxisValues();

// "  group_relative   arXiv 2402.03300" and its formula, of every value of a key; empty for a key that is no axis.
std::string ExplainAxis(const std::string& key);

// All axes, for `rein explain algorithms`.
std::string ExplainAxes();

// The same as rows of a Markdown table, for the README.
std::string AxisMarkdown();

// A text as a cell of such a table.
std::string MarkdownCell(const std::string& text);

}  // namespace rein::config
