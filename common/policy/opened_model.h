// OpenModel builds what every role that only reads a policy needs of a model folder: its shape, its
// weight slots and its text.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "common/models/lora.h"
#include "common/models/model_folder.h"
#include "common/policy/policy_slots.h"
#include "common/text/model_text.h"

namespace rein::policy {

struct ModelChoice {
  std::string path;       // a Hugging Face folder, a config.json, or a PEFT adapter folder
  models::TrainedChoice trained;  // what syncs bring; the rest is read from the folder
  std::string dtype;      // float32 or bfloat16; empty: what suits the device
  std::string device;     // cpu or cuda:N
  bool keep_idle = true;  // see SlotOptions
  bool load_weights = false;  // of the folder, into use
};

struct OpenedModel {
  models::ModelDescription description;
  std::unique_ptr<PolicySlots> slots;
  std::unique_ptr<text::ModelText> text;
};

// NOT_FOUND or INVALID_ARGUMENT names the file that is absent or wrong; FAILED_PRECONDITION when
// the tokenizer makes ids that the model has no row for; RESOURCE_EXHAUSTED without memory.
absl::StatusOr<OpenedModel> OpenModel(const ModelChoice& choice);

}  // namespace rein::policy
