// MemoryPlan says what a trainer will need of its device before anything is allocated.
//
//   MemoryPlan plan = PlanMemory(model, registry, settings, algorithm, ranks);
//   REIN_RETURN_IF_ERROR(CheckPlan(model, registry, settings, algorithm, ranks, free_bytes));
//
// Weights, gradients, optimizer state and copies are counted; activations and workspace are those of models/estimate.h,
// within 5 % of what was measured for shapes that it is calibrated for.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/models/model_folder.h"
#include "common/weights/registry.h"
#include "trainer/algorithms/algorithm.h"
#include "trainer/trainer_settings.h"

namespace rein::trainer {

struct PlannedPart {
  std::string name;    // weights, gradients, optimizer, reference, critic, undo, activations, unpacked, workspace, staging
  int64_t bytes = 0;
  bool kept = false;   // allocated when the job is loaded; else while it trains
};

struct MemoryPlan {
  std::vector<PlannedPart> parts;  // of the device, those of 0 bytes left out
  int64_t host = 0;                // offloaded optimizer state, page-locked

  int64_t total() const;
  int64_t coming() const;  // not kept
};

// Of one of so many ranks.
MemoryPlan PlanMemory(const models::ModelDescription& model, const weights::Registry& registry,
                      const TrainerSettings& settings, const Algorithm& algorithm, int ranks);

// "31.2 GiB: weights 1.2, gradients 2.4, ...".
std::string PlanText(const MemoryPlan& plan);

// The smallest share of the optimizer's state that must be offloaded for the plan to fit, in steps of 0.05; 1 when none
// is enough.
double NeededOffload(const models::ModelDescription& model, const weights::Registry& registry,
                     const TrainerSettings& settings, const Algorithm& algorithm, int ranks, int64_t free_bytes);

// RESOURCE_EXHAUSTED when the plan does not fit, naming its parts and the smallest change of the job that would make it
// fit. OK for models whose activations the estimate is not calibrated for, as long as what is counted fits.
absl::Status CheckPlan(const models::ModelDescription& model, const weights::Registry& registry,
                       const TrainerSettings& settings, const Algorithm& algorithm, int ranks, int64_t free_bytes);

}  // namespace rein::trainer
