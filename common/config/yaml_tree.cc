#include "common/config/yaml_tree.h"

#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

namespace rein::config {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxNodes = 10000;
constexpr int kMaxAliases = 100;

Place ToPlace(const YAML::Mark& mark) { return {.line = mark.line + 1, .column = mark.column + 1}; }

size_t CountNodes(const YamlNode& node) {
  size_t count = 1;
  for (const YamlNode& item : node.items) count += CountNodes(item);
  for (const YamlEntry& entry : node.entries) count += CountNodes(entry.node());
  return count;
}

// Builds the tree from the parser's events. yaml-cpp can only be stopped by its own exception type.
class TreeBuilder final : public YAML::EventHandler {
 public:
  YamlNode Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Add({.kind = YamlNode::Kind::kNull, .place = ToPlace(mark)}, mark, anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (++aliases_ > kMaxAliases) Refuse(mark, absl::StrCat("more than ", kMaxAliases, " aliases"));
    auto found = anchored_.find(anchor);
    if (found == anchored_.end()) Refuse(mark, "an alias of a value that is not complete");
    YamlNode copy = found->second;
    copy.place = ToPlace(mark);
    nodes_ += CountNodes(copy) - 1;
    Add(std::move(copy), mark, 0);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    // "!" marks a quoted text, "?" a plain one.
    bool quoted = tag != "?" && tag != "";
    if (open_.empty() || !WantsKey()) {
      bool null =
          !quoted && (value == "~" || value == "null" || value == "Null" || value == "NULL");
      Add({.kind = null ? YamlNode::Kind::kNull : YamlNode::Kind::kScalar,
           .place = ToPlace(mark),
           .text = null ? "" : value,
           .quoted = quoted},
          mark, anchor);
      return;
    }
    YamlNode& map = open_.back().node;
    if (YamlEntry* first = map.Find(value)) {
      Refuse(mark, absl::StrCat("the key '", value, "' stands twice; first at ", first->place.line,
                                ":", first->place.column));
    }
    map.entries.push_back({.key = value, .place = ToPlace(mark)});
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(YamlNode::Kind::kList, mark, anchor);
  }
  void OnSequenceEnd() override { Close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(YamlNode::Kind::kMap, mark, anchor);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct OpenNode {
    YamlNode node;
    YAML::Mark mark;
    YAML::anchor_t anchor;
  };

  [[noreturn]] static void Refuse(const YAML::Mark& mark, const std::string& why) {
    throw YAML::ParserException(mark, why);
  }

  // True when the innermost open node is a map whose last entry is complete.
  bool WantsKey() const {
    const YamlNode& node = open_.back().node;
    return node.kind == YamlNode::Kind::kMap &&
           (node.entries.empty() || !node.entries.back().value.empty());
  }

  void Open(YamlNode::Kind kind, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (open_.size() >= kMaxDepth) {
      Refuse(mark, absl::StrCat("nested more than ", kMaxDepth, " levels deep"));
    }
    if (!open_.empty() && WantsKey()) Refuse(mark, "a key must be a plain text");
    open_.push_back(
        {.node = {.kind = kind, .place = ToPlace(mark)}, .mark = mark, .anchor = anchor});
  }

  void Close() {
    OpenNode closed = std::move(open_.back());
    open_.pop_back();
    Add(std::move(closed.node), closed.mark, closed.anchor);
  }

  void Add(YamlNode node, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (++nodes_ > kMaxNodes) Refuse(mark, absl::StrCat("more than ", kMaxNodes, " values"));
    if (anchor != 0) anchored_[anchor] = node;
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    if (WantsKey()) Refuse(mark, "a key must be a plain text");
    YamlNode& parent = open_.back().node;
    if (parent.kind == YamlNode::Kind::kList) {
      parent.items.push_back(std::move(node));
    } else {
      parent.entries.back().value.push_back(std::move(node));
    }
  }

  YamlNode root_;
  std::vector<OpenNode> open_;
  std::map<YAML::anchor_t, YamlNode> anchored_;
  size_t nodes_ = 0;
  int aliases_ = 0;
};

}  // namespace

YamlEntry* YamlNode::Find(const std::string& key) {
  for (YamlEntry& entry : entries) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

absl::StatusOr<YamlNode> ParseYaml(const std::string& text) {
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat("1:1: the text has ", text.size(),
                                                   " bytes, at most ", kMaxBytes, " are allowed"));
  }
  if (size_t zero = text.find('\0'); zero != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("1:1: byte ", zero, " is zero: this is not a text file"));
  }
  TreeBuilder builder;
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    YamlNode root = builder.Take();
    TreeBuilder second;
    if (parser.HandleNextDocument(second)) {
      return absl::InvalidArgumentError("1:1: more than one document; a job is one document");
    }
    return root;
  } catch (const YAML::Exception& error) {
    Place place = ToPlace(error.mark);
    return absl::InvalidArgumentError(
        absl::StrCat(std::max(place.line, 1), ":", std::max(place.column, 1), ": ", error.msg));
  }
}

}  // namespace rein::config
