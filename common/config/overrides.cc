#include "common/config/overrides.h"

#include "absl/algorithm/container.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/config/schema.h"

namespace rein::config {
namespace {

constexpr size_t kMaxSegments = 16;

void SetPlace(YamlNode& node, Place place) {
  node.place = place;
  for (YamlNode& item : node.items) SetPlace(item, place);
  for (YamlEntry& entry : node.entries) {
    entry.place = place;
    SetPlace(entry.node(), place);
  }
}

// Makes `node` a map; a scalar moves under the message's shorthand key.
bool BecomeMap(YamlNode& node, const Descriptor* type) {
  if (node.kind == YamlNode::Kind::kMap) return true;
  if (node.kind == YamlNode::Kind::kNull) {
    node.kind = YamlNode::Kind::kMap;
    return true;
  }
  const FieldDescriptor* shorthand = type == nullptr ? nullptr : ShorthandOf(*type);
  if (node.kind != YamlNode::Kind::kScalar || shorthand == nullptr) return false;
  YamlNode scalar = std::move(node);
  node = YamlNode{.kind = YamlNode::Kind::kMap, .place = scalar.place};
  node.entries.push_back(
      {.key = shorthand->name(), .place = scalar.place, .value = {std::move(scalar)}});
  return true;
}

class Override {
 public:
  Override(Place place, std::vector<std::string> segments, YamlNode value)
      : place_(place), segments_(std::move(segments)), value_(std::move(value)) {}

  // Returns what is wrong, or "".
  std::string Apply(YamlNode& node, size_t depth, const Descriptor* type) {
    const std::string& segment = segments_[depth];
    if (node.kind == YamlNode::Kind::kList) return ApplyToItem(node, depth, type);
    if (!BecomeMap(node, type)) {
      return absl::StrCat("cannot set ", segment, " inside a value that has no keys");
    }
    const FieldDescriptor* field = type == nullptr ? nullptr : type->FindFieldByName(segment);
    const Descriptor* next =
        field != nullptr && IsMessage(*field) ? field->message_type() : nullptr;
    bool last = depth + 1 == segments_.size();
    YamlEntry* entry = node.Find(segment);
    if (last && value_.kind == YamlNode::Kind::kNull) {
      std::erase_if(node.entries, [&](const YamlEntry& e) { return e.key == segment; });
      return "";
    }
    if (entry == nullptr) {
      node.entries.push_back(
          {.key = segment, .place = place_, .value = {YamlNode{.place = place_}}});
      entry = &node.entries.back();
    }
    if (!last) return Apply(entry->node(), depth + 1, next);
    entry->place = place_;
    entry->node() = value_;
    return "";
  }

 private:
  std::string ApplyToItem(YamlNode& list, size_t depth, const Descriptor* type) {
    uint32_t index = 0;
    if (!absl::SimpleAtoi(segments_[depth], &index) || index >= list.items.size()) {
      return absl::StrCat("wants an index below ", list.items.size(), " here, got '",
                          segments_[depth], "'");
    }
    if (depth + 1 < segments_.size()) return Apply(list.items[index], depth + 1, type);
    list.items[index] = value_;
    return "";
  }

  const Place place_;
  const std::vector<std::string> segments_;
  const YamlNode value_;
};

}  // namespace

void ApplyOverrides(const std::vector<std::string>& overrides, const Descriptor& type,
                    YamlNode& root, Problems& problems) {
  for (size_t i = 0; i < overrides.size(); ++i) {
    const Place place{.line = 0, .column = static_cast<int>(i) + 1};
    size_t equals = overrides[i].find('=');
    if (equals == std::string::npos || equals == 0) {
      problems.Add(place, "", "wants key.sub=value");
      continue;
    }
    const std::string key = overrides[i].substr(0, equals);
    std::vector<std::string> segments = absl::StrSplit(key, '.');
    if (segments.size() > kMaxSegments || absl::c_linear_search(segments, "")) {
      problems.Add(place, key, "is not a key: wants names with one '.' between them");
      continue;
    }
    absl::StatusOr<YamlNode> value = ParseYaml(overrides[i].substr(equals + 1));
    if (!value.ok()) {
      problems.Add(place, key, absl::StrCat("value: ", value.status().message()));
      continue;
    }
    SetPlace(*value, place);
    std::string problem = Override(place, segments, *std::move(value)).Apply(root, 0, &type);
    if (!problem.empty()) problems.Add(place, key, problem);
  }
}

}  // namespace rein::config
