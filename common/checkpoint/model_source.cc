#include "common/checkpoint/model_source.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::checkpoint {

namespace fs = std::filesystem;

absl::StatusOr<ModelSource> FindModel(const std::string& path) {
  std::error_code error;
  const bool folder = fs::is_directory(path, error);
  const std::string config = path + "/adapter_config.json";
  if (!folder || !fs::exists(config, error)) {
    const std::string parent = fs::path(path).parent_path().string();
    return ModelSource{path, "", folder ? path : parent.empty() ? "." : parent};
  }
  REIN_ASSIGN_OR_RETURN(nlohmann::json adapter, json::ReadJsonFile(config));
  const nlohmann::json base = adapter.is_object() ? adapter.value("base_model_name_or_path", nlohmann::json()) : nlohmann::json();
  if (!base.is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat(config, ": base_model_name_or_path is ", base.dump(), ", want the folder of the base model"));
  }
  const fs::path named = base.get<std::string>(), found = named.is_relative() ? fs::path(path) / named : named;
  if (!fs::is_directory(found, error)) {
    return absl::NotFoundError(absl::StrCat(config, ": base_model_name_or_path is ", base.dump(),
                                            ", which is no folder of this machine; write the path of the base model there"));
  }
  if (fs::exists(found / "adapter_config.json", error)) {
    return absl::InvalidArgumentError(absl::StrCat(config, ": its base ", found.string(),
                                                   " is an adapter too; merge that one into its base first"));
  }
  const bool own_text = fs::exists(path + "/tokenizer.json", error);
  return ModelSource{found.lexically_normal().string(), path, own_text ? path : found.lexically_normal().string()};
}

}  // namespace rein::checkpoint
