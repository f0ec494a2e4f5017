#include "common/config/algorithm_table.h"

#include "absl/strings/str_cat.h"

#include "common/config/axis_table.h"
#include "common/config/schema.h"
#include "rein/v1/job.pb.h"

namespace rein::config {
namespace {

template <typename Visit>
void ForEachAlgorithm(const Visit& visit) {
  const Descriptor& job = *v1::JobConfig::descriptor();
  for (int i = 0; i < job.field_count(); ++i) {
    const FieldDescriptor& field = *job.field(i);
    if (!RulesOf(field).formula().empty()) visit(field.name(), RulesOf(field));
  }
}

// {a: 1, b: {}} -> a: 1, b: {}
std::string WithoutBraces(const std::string& yaml) {
  return yaml.size() < 2 ? yaml : yaml.substr(1, yaml.size() - 2);
}

}  // namespace

std::string ExplainAlgorithms() {
  std::string text;
  ForEachAlgorithm([&](const std::string& name, const v1::FieldRules& rules) {
    absl::StrAppend(&text, name, "   ", rules.source(), "\n  ", rules.doc(), "\n  Formula: ",
                    rules.formula(), "\n");
    if (!rules.defaults().empty()) {
      absl::StrAppend(&text, "  Sets: ", WithoutBraces(rules.defaults()), "\n");
    }
    absl::StrAppend(&text, "  Elsewhere: ", rules.peers(), "\n\n");
  });
  absl::StrAppend(&text,
                  "rho: exp(policy logprob - logprob that sampled). sg: no gradient. Every axis of the policy gradients\n"
                  "can be set on its own (`rein explain grpo.advantage`, say):\n\n",
                  ExplainAxes());
  return text;
}

std::string AlgorithmTable() {
  std::string table = "| name | formula | sets | source | where peers differ |\n|---|---|---|---|---|\n";
  ForEachAlgorithm([&](const std::string& name, const v1::FieldRules& rules) {
    absl::StrAppend(&table, "| `", name, "` | ", MarkdownCell(rules.formula()), " | ",
                    MarkdownCell(WithoutBraces(rules.defaults())), " | ", rules.source(), " | ",
                    MarkdownCell(rules.peers()), " |\n");
  });
  return table;
}

}  // namespace rein::config
