#include "services/controller/placement.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace rein::services {
namespace {

constexpr size_t kGroupsShown = 4;

bool IsFree(const ActorGroup& group) { return group.has_trainer && group.runs == nullptr; }

// "default runs digits"
std::string Runs(const JobRecord& job, const std::string& name, const ActorGroup& group) {
  const bool told = group.runs->owner == job.owner;
  return absl::StrCat(name, " runs ", told ? group.runs->name : "a job of another tenant");
}

}  // namespace

std::optional<std::string> GroupFor(const JobRecord& job, const ActorGroups& groups) {
  const v1::PlacementConfig& placement = job.config.placement();
  for (const auto& [name, group] : groups) {
    if (IsFree(group) && (!placement.has_group() || placement.group() == name)) return name;
  }
  return std::nullopt;
}

std::string WhyItWaits(const JobRecord& job, const ActorGroups& groups) {
  if (GroupFor(job, groups).has_value()) return "";
  const v1::PlacementConfig& placement = job.config.placement();
  if (placement.has_group()) {
    auto found = groups.find(placement.group());
    if (found == groups.end() || found->second.runs == nullptr) {
      return absl::StrCat("waits for a trainer: no trainer of group ", placement.group(), " is here");
    }
    return absl::StrCat("waits for its group: ", Runs(job, found->first, found->second));
  }
  std::vector<std::string> busy;
  for (const auto& [name, group] : groups) {
    if (group.runs != nullptr) busy.push_back(Runs(job, name, group));
  }
  if (busy.empty()) return "waits for a trainer";
  const size_t more = busy.size() - std::min(busy.size(), kGroupsShown);
  busy.resize(busy.size() - more);
  return absl::StrCat("waits for a free group: ", absl::StrJoin(busy, ", "), more == 0 ? "" : absl::StrCat(", and ", more, " more"));
}

}  // namespace rein::services
