#include "common/policy/opened_model.h"

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "common/checkpoint/model_source.h"
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
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, checkpoint::FindModel(choice.path));
  REIN_ASSIGN_OR_RETURN(model.description, models::DescribeTrained(choice.path, choice.trained));
  REIN_ASSIGN_OR_RETURN(model.text, text::ModelText::Load(source.text));
  absl::Status fits =
      text::CheckVocabulary(*model.text, static_cast<uint32_t>(model.description.spec.vocab_size));
  if (!fits.ok()) {
    return absl::Status(fits.code(), absl::StrCat(choice.path, ": ", fits.message()));
  }
  REIN_ASSIGN_OR_RETURN(model.slots, PolicySlots::Create(model.description.spec, options));
  REIN_RETURN_IF_ERROR(choice.load_weights ? model.slots->LoadFolder(choice.path, model.description)
                                           : model.slots->LoadFrozen(choice.path, model.description));
  return model;
}

}  // namespace rein::policy
