#include "common/config/job_paths.h"

#include <filesystem>

#include "absl/strings/str_cat.h"

#include "common/config/nearest_name.h"
#include "common/config/schema.h"

namespace rein::config {
namespace {

namespace fs = std::filesystem;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr int kMostSiblings = 10000;

// What to say of a path that is not there.
std::string Absence(const std::string& written, const fs::path& path) {
  std::error_code error;
  const fs::path folder = path.parent_path();
  const std::string stem = fs::path(written).parent_path().string();
  if (!fs::is_directory(folder, error)) {
    return absl::StrCat(written, " does not exist (there is no folder ",
                        stem.empty() ? folder.string() : stem, ")");
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    names.push_back(entry.path().filename().string());
    if (names.size() >= kMostSiblings) break;
  }
  std::string nearest = NearestName(path.filename().string(), names);
  if (nearest.empty()) return absl::StrCat(written, " does not exist");
  return absl::StrCat(written, " does not exist; ", (fs::path(stem) / nearest).string(), " does");
}

class Resolver {
 public:
  Resolver(const std::string& folder, const Places& places, Problems& problems)
      : folder_(folder), places_(places), problems_(problems) {}

  void Visit(const std::string& path, Message& message) {
    const Reflection& reflection = *message.GetReflection();
    std::vector<const FieldDescriptor*> fields;
    reflection.ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      const std::string key = Dotted(path, field->name());
      if (IsMessage(*field) && field->is_repeated()) {
        for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
          Visit(absl::StrCat(key, ".", i), *reflection.MutableRepeatedMessage(&message, field, i));
        }
      } else if (IsMessage(*field)) {
        Visit(key, *reflection.MutableMessage(&message, field));
      } else if (RulesOf(*field).path() && !field->is_repeated()) {
        Resolve(key, *field, message);
      }
    }
  }

 private:
  void Resolve(const std::string& key, const FieldDescriptor& field, Message& message) {
    const std::string written = message.GetReflection()->GetString(message, &field);
    auto found = places_.find(key);
    const Place place = found == places_.end() ? Place{.line = 1, .column = 1} : found->second;
    fs::path path(written);
    if (path.is_relative()) {
      if (folder_.empty() || written.empty()) {
        problems_.Add(place, key,
                      absl::StrCat("wants an absolute path on the controller's machine, got ",
                                   written.empty() ? "''" : written));
        return;
      }
      path = fs::path(folder_) / path;
    }
    path = path.lexically_normal();
    std::error_code error;
    if (!fs::exists(path, error)) {
      problems_.Add(place, key, Absence(written, path));
      return;
    }
    message.GetReflection()->SetString(&message, &field, path.string());
  }

  const std::string& folder_;
  const Places& places_;
  Problems& problems_;
};

}  // namespace

void ResolvePaths(const std::string& folder, const Places& places, Problems& problems,
                  Message& message) {
  Resolver(folder, places, problems).Visit("", message);
}

}  // namespace rein::config
