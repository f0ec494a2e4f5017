#include "services/role/trained_choice.h"

namespace rein::services {

models::TrainedChoice TrainedChoiceOf(const v1::ModelConfig& model) {
  models::TrainedChoice choice;
  choice.freeze.assign(model.freeze().begin(), model.freeze().end());
  if (model.has_lora()) {
    const v1::LoraConfig& lora = model.lora();
    choice.lora = models::LoraChoice{.rank = lora.rank(),
                                     .alpha = lora.alpha(),
                                     .rank_stabilised = lora.rank_stabilised(),
                                     .targets = {lora.target().begin(), lora.target().end()}};
  }
  return choice;
}

}  // namespace rein::services
