#include "common/config/job_reader.h"

#include "absl/strings/str_cat.h"

#include "common/config/dataset_schema.h"
#include "common/config/defaults.h"
#include "common/config/job_checks.h"
#include "common/config/job_paths.h"
#include "common/config/overrides.h"
#include "common/config/problems.h"
#include "common/config/yaml_reader.h"
#include "common/config/yaml_tree.h"

namespace rein::config {
namespace {

std::string RuleOf(const v1::RewardConfig& reward) {
  const auto* rule = reward.GetDescriptor()->FindOneofByName("rule");
  const auto* field = reward.GetReflection()->GetOneofFieldDescriptor(reward, rule);
  return field == nullptr ? "" : field->name();
}

}  // namespace

absl::StatusOr<v1::JobConfig> ReadJob(const JobText& text) {
  absl::StatusOr<YamlNode> root = ParseYaml(text.yaml);
  if (!root.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(text.file_name, " has 1 problem\n  ",
                                                   text.file_name, ":",
                                                   std::string(root.status().message())));
  }
  v1::JobConfig job;
  Problems problems(text.overrides);
  Places places;
  ApplyOverrides(text.overrides, *job.GetDescriptor(), *root, problems);
  YamlReader(problems, places).Read(*root, "", job);
  ApplyDefaults(job);
  ApplySchemas(places, job);
  CheckJob(job, places, problems);
  if (job.has_evaluate() || job.has_generate() || job.has_score()) {  // nothing is trained: these would have no effect
    job.clear_trainer();
    job.clear_checkpoint();
    if (!job.has_evaluate()) job.clear_eval();
  }
  ResolvePaths(text.folder, places, problems, job);
  if (!problems.empty()) return absl::InvalidArgumentError(problems.Report(text.file_name));
  return job;
}

std::string NameOfReward(const v1::RewardConfig& reward) {
  return reward.has_name() ? reward.name() : RuleOf(reward);
}

}  // namespace rein::config
