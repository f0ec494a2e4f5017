#include "common/policy/opened_model.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "common/status/status_macros.h"

namespace rein::policy {
namespace {

absl::StatusOr<at::ScalarType> ParseDtype(const std::string& dtype) {
  if (dtype.empty()) return at::ScalarType::Undefined;
  if (dtype == "float32") return at::kFloat;
  if (dtype == "bfloat16") return at::kBFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype is '", dtype, "', want float32 or bfloat16"));
}

}  // namespace

absl::StatusOr<OpenedModel> OpenModel(const ModelChoice& choice) {
  if (choice.path.empty()) {
    return absl::InvalidArgumentError("model: want a Hugging Face folder or a config.json");
  }
  OpenedModel model;
  SlotOptions options = {.device = at::Device(choice.device), .keep_idle = choice.keep_idle};
  REIN_ASSIGN_OR_RETURN(options.dtype, ParseDtype(choice.dtype));
  REIN_ASSIGN_OR_RETURN(model.description, models::DescribeModel(choice.path));
  std::filesystem::path folder = choice.path;
  if (!std::filesystem::is_directory(folder)) folder = folder.parent_path();
  REIN_ASSIGN_OR_RETURN(model.text, text::ModelText::Load(folder.empty() ? "." : folder.string()));
  absl::Status fits =
      text::CheckVocabulary(*model.text, static_cast<uint32_t>(model.description.spec.vocab_size));
  if (!fits.ok()) {
    return absl::Status(fits.code(), absl::StrCat(choice.path, ": ", fits.message()));
  }
  REIN_ASSIGN_OR_RETURN(model.slots, PolicySlots::Create(model.description.spec, options));
  if (choice.load_weights) {
    REIN_RETURN_IF_ERROR(model.slots->LoadFolder(choice.path, model.description));
  }
  return model;
}

}  // namespace rein::policy
