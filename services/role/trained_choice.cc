#include "services/role/trained_choice.h"

#include "common/kernels/exactness.h"

namespace rein::services {

models::LoraChoice LoraChoiceOf(const v1::LoraConfig& lora) {
  return {.rank = lora.rank(),
          .alpha = lora.alpha(),
          .rank_stabilised = lora.rank_stabilised(),
          .targets = {lora.target().begin(), lora.target().end()},
          .save = {lora.save().begin(), lora.save().end()}};
}

models::TrainedChoice TrainedChoiceOf(const v1::ModelConfig& model) {
  models::TrainedChoice choice;
  choice.freeze.assign(model.freeze().begin(), model.freeze().end());
  if (model.has_lora()) choice.lora = LoraChoiceOf(model.lora());
  choice.mtp = model.mtp();
  choice.kv_fp8 = model.kv_cache() == v1::KV_FORMAT_FP8;
  if (model.base() == v1::BASE_FORMAT_INT8) choice.base = weights::Quantisation::kInt8;
  if (model.base() == v1::BASE_FORMAT_NF4) choice.base = weights::Quantisation::kNf4;
  return choice;
}

const std::string& ModelPathOf(const v1::ModelConfig& model) { return model.has_path() ? model.path() : model.config(); }

void KeepBitsAs(const v1::ModelConfig& model) { kernels::KeepBits(!model.has_exact() || model.exact()); }

}  // namespace rein::services
