#include "common/weights/weight_plan.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace rein::weights {
namespace {

std::string Describe(const PlannedParameter& p) {
  return absl::StrCat(p.dtype, "[", absl::StrJoin(p.shape, ", "), "] at ", p.offset_bytes);
}

}  // namespace

WeightPlan PlanOf(const Registry& registry, const std::string& dtype) {
  const uint64_t element_bytes = dtype == "float32" ? 4 : 2;
  WeightPlan plan;
  plan.arena_bytes = registry.trained_elements() * element_bytes;
  for (const Parameter& parameter : registry.parameters()) {
    if (!registry.InTrainedPart(parameter)) continue;
    plan.parameters.push_back({parameter.spec.name, parameter.local_shape, dtype,
                               (parameter.offset - registry.trained_begin()) * element_bytes,
                               parameter.elements * element_bytes});
  }
  return plan;
}

absl::Status CheckPlan(const WeightPlan& sent, const WeightPlan& own) {
  std::vector<std::string> problems;
  std::map<std::string, const PlannedParameter*> own_by_name;
  for (const PlannedParameter& p : own.parameters) own_by_name[p.name] = &p;
  for (const PlannedParameter& p : sent.parameters) {
    auto it = own_by_name.find(p.name);
    if (it == own_by_name.end()) {
      problems.push_back(absl::StrCat(p.name, ": only the sender has it"));
      continue;
    }
    if (!(p == *it->second)) {
      problems.push_back(absl::StrCat(p.name, ": the sender has ", Describe(p), ", the receiver ",
                                      Describe(*it->second)));
    }
    own_by_name.erase(it);
  }
  for (const auto& [name, unused] : own_by_name) {
    problems.push_back(absl::StrCat(name, ": only the receiver has it"));
  }
  if (problems.empty() && sent.arena_bytes != own.arena_bytes) {
    problems.push_back(absl::StrCat("arena: the sender's has ", sent.arena_bytes,
                                    " bytes, the receiver's ", own.arena_bytes));
  }
  if (problems.empty() && sent.frozen_digest != own.frozen_digest) {
    problems.push_back(absl::StrFormat("the weights that are not trained: the sender's have digest %016x, the receiver's "
                                       "%016x: load the same base model on both",
                                       sent.frozen_digest, own.frozen_digest));
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "weight plan does not fit: ", problems.size(), " problem(s): ", absl::StrJoin(problems, "; ")));
}

}  // namespace rein::weights
